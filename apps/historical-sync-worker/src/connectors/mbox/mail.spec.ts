import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { MailFault, MailRecord } from './mail.js';
import { MAX_HEADER_BYTES, MAX_HTML_CHARS, MAX_RECIPIENTS, MAX_REFERENCES, MAX_TEXT_CHARS, parseMail } from './mail.js';
import { readMbox } from './mbox.js';

const ENVELOPE = { sender: 'env@x.org', date: new Date('2003-03-08T06:30:00Z') };
const HEAD = 'From: Ann <ann@x.org>\nDate: Sat, 07 Apr 2001 09:05:59 +0200\nMessage-ID: <m1@x.org>\n';

const parse = (message: string | Buffer, envelope: { sender: string; date: Date | null } = ENVELOPE) =>
  parseMail(Buffer.from(message as string), envelope);

async function record(message: string | Buffer): Promise<MailRecord> {
  const mail = await parse(message);
  if ('code' in mail) throw new Error(`${mail.code}: ${mail.reason}`);
  return mail;
}

async function fixture(): Promise<(MailRecord | MailFault)[]> {
  const bytes = readFileSync(join(__dirname, 'fixtures/orchard.mbox'));
  const mails: (MailRecord | MailFault)[] = [];
  async function* source(): AsyncGenerator<Uint8Array> {
    yield bytes;
  }
  for await (const entry of readMbox(source())) {
    if ('raw' in entry) mails.push(await parseMail(entry.raw, entry.envelope));
  }
  return mails;
}

describe('the fixture', () => {
  it('is read in every charset, transfer encoding and multipart form', async () => {
    const mails = await fixture();
    expect(mails).toMatchObject([
      {
        from: { address: 'jose@orchard.example', name: 'José Martínez' },
        subject: 'Bestäuber für die Birnen',
        text: 'Which pollinator suits the old pear rows? The bees arrive in April – “early” ones too. 🐝',
        listAddress: 'growers@orchard.example',
      },
      { messageId: 'frost-2@hives.example', inReplyTo: 'frost-1@valley.example' },
      {
        inReplyTo: 'pears-1@orchard.example',
        sentAt: new Date('2003-03-04T11:30:00Z'),
        text: 'Die Sorte "Köstliche aus Charneux" blüht zur gleichen Zeit. Grüße, Anna',
      },
      { from: { name: 'Piet de Boer' }, text: expect.stringContaining('\n\nFrom Wednesday on') as string },
      {
        references: ['frost-1@valley.example', 'frost-2@hives.example'],
        text: expect.stringContaining('\nFrom our side: the smudge pots are ready.\n>From the archive') as string,
      },
      { from: { name: 'Lena Ørsted' }, text: expect.stringContaining('95 € – “as good as new”') as string },
      { from: { name: 'Иван Петров' }, subject: 'Цена бочек', text: expect.stringMatching(/^Дубовые бочки/) as string },
      { text: 'Come and taste the linden honey on Saturday.', cc: [{ address: 'lena@cellar.example', name: null }] },
      {
        text: 'I bring two loaves & the cellar plan.',
        attachments: [{ filename: 'cellar plan.pdf', contentType: 'application/pdf', size: 24 }],
      },
      {
        messageId: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) as string,
        inReplyTo: 'not-in-this-archive@mill.example',
        sentAt: new Date('2003-03-08T06:30:00Z'),
      },
      { code: 'MAIL_NO_SENDER' },
      { from: { address: 'piet@valley.example', name: 'Piet de Boer' }, inReplyTo: 'barrels-1@cellar.example' },
    ]);
  });
});

describe('parseMail', () => {
  it('hashes the raw bytes, and names a message without an id by them', async () => {
    const message = HEAD.replace(/Message-ID.*\n/, '') + '\nhi\n';
    const hash = createHash('sha256').update(message).digest('hex');
    expect(await record(message)).toMatchObject({ contentHash: hash, messageId: `sha256:${hash}` });
    expect(await record(message)).toEqual(await record(message));
  });

  it.each([
    ['<a@b>; from ann@x.org on Fri', 'a@b'],
    ['Your message of "Fri" <a@b> <c@d>', 'a@b'],
    ['a@b', 'a@b'],
    ['Your message of Friday', null],
    ['<>', null],
  ])('reads In-Reply-To: %s', async (value, id) => {
    expect((await record(`${HEAD}In-Reply-To: ${value}\n\nhi`)).inReplyTo).toBe(id);
  });

  it('reads folded references without comments and repetition, and keeps the root and the nearest of many', async () => {
    const few = await record(`${HEAD}References: <a@b>; from ann@x.org\n\t<c@d> <a@b>\n <e@f>\n\nhi`);
    expect(few.references).toEqual(['a@b', 'c@d', 'e@f']);
    const ids = Array.from({ length: 500 }, (_, n) => `<${n}@x>`).join('\n ');
    const many = (await record(`${HEAD}References: ${ids}\n\nhi`)).references;
    expect(many).toHaveLength(MAX_REFERENCES);
    expect([many[0], many[1], many.at(-1)]).toEqual(['0@x', '401@x', '499@x']);
  });

  it('replaces a giant id by the same hash wherever it stands', async () => {
    const id = `${'é'.repeat(900)}@x.org`;
    const parent = await record(`${HEAD.replace('m1@x.org', id)}\nhi`);
    expect(parent.messageId).toMatch(/^id-sha256:[0-9a-f]{64}$/);
    expect((await record(`${HEAD}In-Reply-To: <${id}>\n\nhi`)).inReplyTo).toBe(parent.messageId);
  });

  it('lower-cases addresses, cleans names, flattens groups and drops what is no address', async () => {
    const mail = await record(
      `${HEAD}To: "'Bob\tB.'" <BOB@X.org>, undisclosed: eve@x.org, c@x.org;, root, <>\nCc: bob@x.org, "d@x.org" <D@x.org>\nBcc: f@x.org\n\nhi`,
    );
    expect(mail.to).toEqual([
      { address: 'bob@x.org', name: 'Bob B.' },
      { address: 'eve@x.org', name: null },
      { address: 'c@x.org', name: null },
    ]);
    expect(mail.cc).toEqual([
      { address: 'bob@x.org', name: null },
      { address: 'd@x.org', name: null },
    ]);
    expect(mail.bcc).toEqual([{ address: 'f@x.org', name: null }]);
  });

  it('bounds the recipients', async () => {
    const to = Array.from({ length: 2000 }, (_, n) => `a${n}@x.org`).join(',\n ');
    expect((await record(`${HEAD}To: ${to}\n\nhi`)).to).toHaveLength(MAX_RECIPIENTS);
  });

  it('finds the list by List-Post, else by the recipient that List-Id describes', async () => {
    const to = 'To: bob@x.org, List-a@lists.org\n';
    expect((await record(`${HEAD}${to}List-Post: <mailto:P@lists.org?subject=x>\n\nhi`)).listAddress).toBe(
      'p@lists.org',
    );
    expect((await record(`${HEAD}${to}List-Id: The list <list-a.lists.org>\n\nhi`)).listAddress).toBe(
      'list-a@lists.org',
    );
    expect((await record(`${HEAD}${to}List-Id: <other.lists.org>\nList-Post: NO\n\nhi`)).listAddress).toBeNull();
  });

  it.each([
    ['Sat, 07 Apr 2001 09:05:59 +0200', '2001-04-07T07:05:59.000Z'],
    ['Sat, 07 Apr 2001 09:05:59 +0200 (CEST)', '2001-04-07T07:05:59.000Z'],
    ['7 Apr 01 09:05 EST', '2001-04-07T14:05:00.000Z'],
    ['Sat, 07 Apr 2001 09:05:59', '2001-04-07T09:05:59.000Z'],
    ['Sat, 07 Apr 2001 09:05:59 MET DST', '2001-04-07T09:05:59.000Z'],
    ['2001-04-07T09:05:59Z', '2001-04-07T09:05:59.000Z'],
    ['Sat, 07 Apr 0101 09:05:59 +0000', '2003-03-08T06:30:00.000Z'],
    ['Thu, 01 Jan 1970 00:00:00 +0000', '2003-03-08T06:30:00.000Z'],
    ['Sat, 07 Apr 9999 09:05:59 +0000', '2003-03-08T06:30:00.000Z'],
    ['7 of next week 09:05', '2003-03-08T06:30:00.000Z'],
    ['next week', '2003-03-08T06:30:00.000Z'],
  ])('dates a message of "%s"', async (date, iso) => {
    expect((await record(HEAD.replace(/Date:.*/, `Date: ${date}`) + '\nhi')).sentAt.toISOString()).toBe(iso);
  });

  it('keeps no NUL and no lone surrogate in any string', async () => {
    const lone = '=?utf-16le?B?' + Buffer.from([0x41, 0, 0, 0xd8, 0x42, 0]).toString('base64') + '?=';
    const mail = await record(
      `From: ${lone} a\0b <ann@x.org>\nDate: Sat, 07 Apr 2001 09:05:59 +0200\nSubject: ${lone} a\0b\nMessage-ID: <a\0b@x>\n\na\0b\ud800`,
    );
    const strings = JSON.stringify(mail);
    expect(strings).not.toContain('\\u0000');
    expect(strings).not.toMatch(/\\ud[89a-f]/);
    expect(mail.text).toMatch(/^a\ufffdb/);
    expect(mail.messageId).toBe('a\ufffdb@x');
  });

  it('cuts a long body between characters and says so', async () => {
    const exact = await record(`${HEAD}\n${'x'.repeat(MAX_TEXT_CHARS)}\n`);
    expect(exact).toMatchObject({ truncated: false });
    const long = await record(
      `${HEAD}Content-Type: text/plain; charset=utf-8\n\n${'x'.repeat(MAX_TEXT_CHARS - 1)}🐝 more`,
    );
    expect(long.truncated).toBe(true);
    expect(long.text).toBe('x'.repeat(MAX_TEXT_CHARS - 1));
    const behindBlanks = await record(`${HEAD}\n${' \n'.repeat(MAX_TEXT_CHARS)}  x`);
    expect(behindBlanks).toMatchObject({ text: '  x', truncated: false });
  });

  it.each([
    ['at the root', 'Content-Type: text/html\n\n<p>Hello <b>world</b></p>'],
    [
      'in an alternative',
      'Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>Hello <b>world</b></p>\n--b--',
    ],
    [
      'beside a blank text',
      'Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\n \n--b\nContent-Type: text/html\n\n<p>Hello <b>world</b></p>\n--b--',
    ],
  ])('turns HTML %s into text', async (_, part) => {
    expect(await record(`${HEAD}MIME-Version: 1.0\n${part}`)).toMatchObject({ text: 'Hello world', truncated: false });
  });

  it('keeps the text when HTML beside it is too long, and says that something is missing', async () => {
    const html = `<p>${'x '.repeat(MAX_HTML_CHARS / 2)}</p>`;
    const mail = await record(
      `${HEAD}MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n${html}\n--b\nContent-Type: text/plain\n\nfooter\n--b--`,
    );
    expect(mail).toMatchObject({ text: 'footer', truncated: true });
  });

  it('says that something is missing when a message has more parts than the parser reads', async () => {
    const parts = '--b\nContent-Type: text/plain\n\nx\n'.repeat(1500);
    const mail = await record(`${HEAD}MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n${parts}--b--`);
    expect(mail.truncated).toBe(true);
  });

  it('reads a part with an empty Content-Type', async () => {
    const mail = await record(
      `${HEAD}MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: \n\nx\n--b--`,
    );
    expect(mail.messageId).toBe('m1@x.org');
  });

  it('is not slowed by a body of unclosed image brackets', async () => {
    const part = `<p>${'[cid:'.repeat(150_000)}</p>`;
    expect((await record(`${HEAD}Content-Type: text/html\n\n${part}`)).text).toContain('[cid:[cid:');
  });

  it.each<[string, string, string]>([
    ['MAIL_EMPTY', '', 'empty'],
    ['MAIL_EMPTY', '\r\n \n', 'empty'],
    ['MAIL_NO_HEADERS', '\njust a body\n', 'begins'],
    ['MAIL_NO_SENDER', 'Subject: x\nDate: Sat, 07 Apr 2001 09:05:59 +0200\n\nhi', 'no From header'],
    ['MAIL_NO_SENDER', 'From: root\n\nhi', '"root"'],
    ['MAIL_UNPARSABLE', `From: a@b\nX: ${'x'.repeat(MAX_HEADER_BYTES)}\n\nhi`, 'headers'],
  ])('answers %s for a broken message', async (code, message, reason) => {
    const fault = await parse(message);
    expect(fault).toEqual({ code, reason: expect.stringContaining(reason) as string });
  });

  it('answers MAIL_NO_DATE when neither header nor separator has a date', async () => {
    expect(await parse('From: ann@x.org\nDate: soon\0\n\nhi', { sender: '', date: null })).toEqual({
      code: 'MAIL_NO_DATE',
      reason: expect.stringContaining('"soon') as string,
    });
  });
});
