import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connect } from '@lancedb/lancedb';
import { DEFAULT_TENANT_ID } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { localHashEmbedder } from './embedder.js';
import { forgetPerson } from './forget.js';
import { indexPending, optimiseIndex, rebuildIndex, type IndexTarget } from './indexer.js';
import { ingestMessages } from './ingest.js';
import { memoryMigrations } from './migrations.js';
import type { SourceMessage } from './message.js';
import { searchMemory } from './search.js';
import { SemanticStore } from './semantic-store.js';

const TENANT = DEFAULT_TENANT_ID;
let db: TestDatabase;
let folder: string;
let target: IndexTarget;
beforeAll(async () => {
  db = await aDatabase(memoryMigrations);
  folder = await mkdtemp(path.join(tmpdir(), 'forget-'));
  // So few rows that the vectors have an index as well.
  const store = new SemanticStore({ uri: folder, exactUpToRows: 50 });
  target = { db: db.app, store, embedder: localHashEmbedder, tenant: TENANT };
});
afterAll(async () => {
  await target?.store.close();
  await db?.drop();
  await rm(folder, { recursive: true, force: true });
});

const word = () => `q${randomBytes(5).toString('hex')}q`;
const [first, last, host] = [word(), word(), word()];
const ADA = { address: `${first}@${host}.example`, name: `${first} ${last}` };
const NEAR = { address: `x${first}@${host}.example`, name: 'Somebody near' };
const BOB = { address: 'bob@example.org', name: 'Bob' };
const EVE = { address: 'eve@example.org', name: 'Eve' };
const PHONE = '+49 170 5550199';

function aMail(
  id: string,
  from: typeof ADA,
  to: readonly (typeof ADA)[],
  more: Partial<SourceMessage> = {},
): SourceMessage {
  return {
    messageId: id,
    inReplyTo: null,
    references: [],
    from,
    to,
    cc: [],
    listAddress: null,
    subject: `About ${id}`,
    sentAt: new Date('2024-01-01T10:00:00Z'),
    text: `The text of ${id}.`,
    truncated: false,
    attachments: [],
    contentHash: `hash of ${id}`,
    ...more,
  };
}

const rootId = `1.${ADA.address}`;
const MAILS = [
  aMail(rootId, ADA, [BOB, EVE], { subject: 'Cider barrels', text: `Call me: ${PHONE}. ${ADA.name}` }),
  aMail('2@x', BOB, [ADA, NEAR], {
    inReplyTo: rootId,
    references: [rootId],
    subject: 'Re: Cider barrels',
    text: `Dear ${last}, ${ADA.name.toUpperCase()} wrote to ${NEAR.address}:\n> ${ADA.address}\nWill you? I will.`,
    attachments: [{ filename: `${first} ${last}.pdf`, contentType: 'application/pdf', size: 1 }],
  }),
  aMail('3@x', EVE, [BOB], {
    subject: `What ${ADA.name} said`,
    text: `${first}\n${last} has ${PHONE}, says ${first}. ${last}`,
  }),
  aMail('4@x', { address: 'private@example.net', name: ADA.name }, [BOB]),
  ...Array.from({ length: 120 }, (_, n) => aMail(`other ${n}@x`, EVE, [BOB], { subject: `Orchard ${n}` })),
];

const ingest = (messages: readonly SourceMessage[], source = 'inbox') =>
  db.app.transaction(TENANT, (tx) => ingestMessages(tx, { tenant: TENANT, jobId: 'job', source, messages }));
async function indexed(): Promise<void> {
  while ((await indexPending(target, { limit: 40 })).pending);
  await optimiseIndex(target);
}
/** The bytes of all files, by their names. */
async function files(): Promise<Map<string, string>> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true });
  const all = names.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  return new Map(
    await Promise.all(
      all.map(async (name) => [name, (await readFile(name)).toString('latin1').toLowerCase()] as const),
    ),
  );
}
async function rowsAsText(): Promise<string> {
  const tables = await db.asOwner<{ name: string }>(
    `select tablename as name from pg_tables where schemaname = 'public' or tablename like 'pg_statistic%'`,
  );
  let all = '';
  for (const { name } of tables) {
    const rows = await db.asOwner<{ row: string }>(`select t::text as row from ${name} t`);
    all += rows
      .map(({ row }) => row)
      .join('\n')
      .toLowerCase();
  }
  const table = await (await connect(path.join(folder, TENANT))).openTable('records');
  const index = await table.query().select(['id', 'subject', 'text', 'author']).toArray();
  return all + index.map((row) => JSON.stringify(row).toLowerCase()).join('\n');
}
const search = (query: string) =>
  searchMemory(db.app, target.store, localHashEmbedder, { tenant: TENANT, query, mode: 'KEYWORD', limit: 10 });

test('of a forgotten person neither rows nor index nor a later import of the same mail know anything', async () => {
  await ingest(MAILS);
  await indexed();
  const before = await files();
  expect((await search(first)).length).toBeGreaterThan(0);
  const known = await rowsAsText();
  for (const secret of [ADA.address, ADA.name, PHONE]) expect(known).toContain(secret.toLowerCase());
  // In files whose compression keeps short texts readable it is seen that there is something to find.
  expect([...before.values()].some((bytes) => bytes.includes(ADA.address))).toBe(true);

  // A reader that fails in the middle, and one that comes again.
  const rewrite = jest.spyOn(target.store, 'rewrite').mockRejectedValueOnce(new Error('killed'));
  const forget = () =>
    forgetPerson(
      target,
      { addresses: [ADA.address], values: [ADA.name, PHONE, 'Will', '2024-01-01'] },
      { readersLeaveMs: 0 },
    );
  await expect(forget()).rejects.toThrow('killed');
  await forget();
  rewrite.mockRestore();

  await db.asOwner('analyze');
  const left = (await rowsAsText()).replaceAll(NEAR.address, '');
  for (const secret of [ADA.address, ADA.name, PHONE])
    expect([secret, left.includes(secret.toLowerCase())]).toEqual([secret, false]);
  const after = await files();
  expect(
    [...after.keys()].filter((name) => before.has(name) && /\.(lance|idx|txn|manifest|arrow)$/.test(name)),
  ).toEqual([]);
  for (const [name, bytes] of after)
    for (const secret of [ADA.address, ADA.name])
      expect([name, bytes.replaceAll(NEAR.address, '').includes(secret)]).toEqual([name, false]);
  expect((await search(host)).map(({ record }) => record.messageId)).toEqual(['2@x']);

  // What others wrote is there, without them, and found.
  const rows = await db.asOwner(
    `select message_id, subject, text, recipients, in_reply_to, reference_ids, attachments->0->>'filename' as file
     from memory_records where message_id in ('2@x', '3@x') order by 1`,
  );
  expect(rows).toEqual([
    {
      message_id: '2@x',
      subject: 'Re: Cider barrels',
      in_reply_to: null,
      reference_ids: [],
      file: '[erased].pdf',
      text: `Dear [erased], [erased] wrote to ${NEAR.address}:\n> [erased]\n[erased] you? I will.`,
      recipients: [{ ...NEAR, role: 'to' }],
    },
    {
      message_id: '3@x',
      subject: 'What [erased] said',
      in_reply_to: null,
      reference_ids: [],
      file: null,
      // Out of their threads a single word is anybody's, also where it is theirs.
      text: expect.stringMatching(/^\[erased\] has \[erased\], says/),
      recipients: [{ ...BOB, role: 'to' }],
    },
  ]);
  const [hit] = await search('cider barrels');
  expect(hit!.record).toMatchObject({ messageId: '2@x', threadSubject: 'Cider barrels' });
  expect(await search('orchard 7')).not.toEqual([]);
  expect(await target.store.count(TENANT)).toBe(MAILS.length - 1);

  // Again, from another archive too, nothing comes in; what is written from now on does.
  expect(await ingest(MAILS)).toMatchObject({ recordsNew: 0, recordsChanged: 0, recordsUnchanged: MAILS.length });
  const source = 'another archive';
  expect(await ingest(MAILS.slice(0, 2), source)).toMatchObject({ recordsNew: 1, recordsUnchanged: 1 });
  const again = await db.asOwner<{ text: string; recipients: unknown }>(
    'select text, recipients from memory_records where source = $1',
    [source],
  );
  expect(again).toEqual([{ text: expect.stringContaining('\n> [erased]\n'), recipients: [{ ...NEAR, role: 'to' }] }]);
  const later = aMail('5@x', ADA, [BOB], { sentAt: new Date(Date.now() + 60_000) });
  expect(await ingest([later])).toMatchObject({ recordsNew: 1, people: 1 });

  // The index is what Postgres makes of it.
  await indexed();
  await rebuildIndex(target);
  await indexed();
  expect((await search('cider barrels'))[0]!.record.messageId).toBe('2@x');
});

test('of a tenant without mail there is nothing to forget', async () => {
  const nobody = { ...target, tenant: '00000000-0000-7000-8000-0000000000ff' as typeof TENANT };
  for (const addresses of [[ADA.address], []])
    await forgetPerson(nobody, { addresses, values: [] }, { readersLeaveMs: 0 });
  expect(await target.store.count(nobody.tenant)).toBe(0);
});
