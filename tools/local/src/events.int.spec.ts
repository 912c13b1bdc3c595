import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { type TenantId } from '@atomo-cc/kernel';
import { append, eventStoreMigrations } from '@atomo-cc/event-store';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { makeThrowAwayFolder } from './throw-away.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const COMMAND = path.resolve('tools/local/dist/events.js');

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(120_000);

let database: TestDatabase;
let folder: string;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations, { poolSize: 2 });
  folder = makeThrowAwayFolder();
});
afterAll(async () => {
  await database?.drop();
  fs.rmSync(folder, { recursive: true, force: true });
});

beforeEach(async () => {
  await database.asOwner('truncate event_log, event_streams, audit_log');
  for (const [tenant, stream] of [
    [A, 'Contact-1'],
    [A, 'Contact-2'],
    [B, 'Contact-1'],
  ] as const) {
    const event = { type: 'Thing.happened', schemaVersion: 1, data: { name: 'Ada' } };
    const metadata = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
    await database.app.transaction(tenant, (tx) =>
      append(tx, tenant, [{ stream, expected: 'any', events: [event, event, event], metadata }]),
    );
  }
});

/** Runs the command as npm does, from the throw-away folder; the environment has what it needs unless changed. */
async function events(args: string[], environment: Record<string, string> = {}) {
  const child = spawn(process.execPath, [COMMAND, ...args], {
    env: {
      PATH: process.env['PATH'],
      INIT_CWD: folder,
      ATOMO_HOME: path.join(folder, 'home'),
      DATABASE_URL: database.url,
      AUTH_SECRET: 'the secret of this test',
      ENCRYPTION_KEY: 'the encryption key of this test, which is long',
      ...environment,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const [code] = (await once(child, 'close')) as [number];
  return { code, out, err };
}

it('says that a sound log is sound', async () => {
  const said = await events(['verify']);
  expect(said).toMatchObject({ code: 0, err: '' });
  expect(said.out).toMatch(/^Every chain is sound \(3 streams, 9 events, \d+\.\d s\)\.\n$/);
  expect((await events(['verify', '--tenant', B])).out).toMatch(/\(1 streams, 3 events,/);
  const none = await events(['verify', '--tenant', '00000000-0000-7000-8000-0000000000ff']);
  expect(none).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^There are no events, so nothing is proved \(0 /),
  });
});

it('names the event that was changed, with exit code 1', async () => {
  await database.asOwner(
    `update event_log set data = '{"name": "Adb"}' where tenant_id = $1 and stream = $2 and stream_version = 2`,
    [A, 'Contact-2'],
  );
  const [row] = await database.asOwner<{ position: string }>(
    `select position from event_log where data->>'name' = 'Adb'`,
  );
  const said = await events(['verify']);
  expect(said.code).toBe(1);
  expect(said.err).toMatch(
    new RegExp(
      `^tenant ${A}, stream "Contact-2", version 2, position ${row!.position}: LOG_EVENT_CHANGED\\. [^\\n]+\\n$`,
    ),
  );
  expect(said.out).toMatch(/^Broken streams: 1 \(3 streams/);
  expect(await events(['verify', '--tenant', B])).toMatchObject({ code: 0 });
  const refused = await events(['checkpoint', 'broken.checkpoint']);
  expect(refused).toMatchObject({ code: 1, err: expect.stringContaining('was not written') });
  expect(fs.readdirSync(folder).filter((name) => name.startsWith('broken'))).toEqual([]);
});

it('names a removed stream by a checkpoint, which must be signed with the secret of the installation', async () => {
  expect(await events(['checkpoint', 'log.checkpoint'])).toMatchObject({ code: 0, err: '' });
  const compared = ['verify', '--checkpoint', 'log.checkpoint'];
  expect(await events(compared)).toMatchObject({
    code: 0,
    out: expect.stringMatching(/All 3 streams of the checkpoint/),
  });

  fs.mkdirSync(path.join(folder, 'home'), { recursive: true });
  const kept = { authSecret: 'the secret of this test' };
  fs.writeFileSync(path.join(folder, 'home', 'secrets.json'), JSON.stringify(kept));
  expect(await events(compared, { AUTH_SECRET: '' })).toMatchObject({ code: 0 });
  expect(await events(compared, { AUTH_SECRET: 'another' })).toMatchObject({
    code: 1,
    err: expect.stringContaining('its signature is wrong'),
  });

  await database.asOwner('delete from event_log where tenant_id = $1', [B]);
  await database.asOwner('delete from event_streams where tenant_id = $1', [B]);
  expect(await events(['verify'])).toMatchObject({ code: 0 });
  const said = await events(compared);
  expect(said.code).toBe(1);
  expect(said.err).toMatch(new RegExp(`^tenant ${B}, stream "Contact-1", version 3, position none: LOG_STREAM_GONE`));
  expect(await events([...compared, '--tenant', A])).toMatchObject({ code: 0 });
});

it('a checkpoint of one tenant compares with that tenant only', async () => {
  expect(await events(['checkpoint', 'one.checkpoint', '--tenant', A])).toMatchObject({ code: 0 });
  const compared = ['verify', '--checkpoint', 'one.checkpoint'];
  expect(await events(compared)).toMatchObject({ code: 1, err: expect.stringContaining(`--tenant ${A}`) });
  expect(await events([...compared, '--tenant', A])).toMatchObject({ code: 0 });
});

describe('export, import and replay', () => {
  let copy: TestDatabase;
  let env: Record<string, string>;
  beforeEach(async () => {
    copy = await aDatabase(eventStoreMigrations, { poolSize: 1 });
    env = { DATABASE_URL: copy.url };
  });
  afterEach(() => copy?.drop());
  const rowsOf = (of: TestDatabase, table: string) =>
    of.asOwner(`select to_jsonb(t)::text as row from ${table} t order by 1`);
  const inFolder = (name: string) => path.join(folder, name);

  it.each(['log.ndjson', 'log.ndjson.gz'])('carry the log over as %s', async (name) => {
    const exported = await events(['export', name]);
    expect(exported).toMatchObject({ code: 0, err: '', out: expect.stringMatching(/^9 events, 0 keys[^\n]+\n$/m) });
    expect(fs.statSync(inFolder(name)).mode & 0o777).toBe(0o600);
    expect(fs.readdirSync(folder).filter((each) => each.endsWith('.new'))).toEqual([]);
    const imported = await events(['import', name], env);
    expect(imported).toMatchObject({ code: 0, err: '', out: expect.stringMatching(/^9 events, [^\n]+ imported/m) });
    expect(await events(['verify'], env)).toMatchObject({ code: 0 });
    expect(await events(['replay'], env)).toMatchObject({ err: '', code: 0, out: expect.stringMatching(/audit 9/) });
    for (const table of ['event_log', 'event_streams', 'audit_log']) {
      expect(await rowsOf(copy, table)).toEqual(await rowsOf(database, table));
    }
    const refused = { code: 1, out: '' };
    expect(await events(['import', name], env)).toMatchObject({ ...refused, err: expect.stringMatching(/has events/) });
    expect(await events(['replay'], env)).toMatchObject({ code: 1, err: expect.stringMatching(/--again/) });
    expect(await events(['replay', '--again'], env)).toMatchObject({ code: 0 });
    expect(await rowsOf(copy, 'audit_log')).toEqual(await rowsOf(database, 'audit_log'));
  });

  it('carry one tenant over alone', async () => {
    expect(await events(['export', 'b.ndjson', '--tenant', B])).toMatchObject({ code: 0 });
    expect(await events(['import', 'b.ndjson'], env)).toMatchObject({ code: 0 });
    expect(await copy.asOwner('select tenant_id, stream, stream_version from event_log order by position')).toEqual(
      await database.asOwner(
        'select tenant_id, stream, stream_version from event_log where tenant_id = $1 order by position',
        [B],
      ),
    );
  });

  it('refuse a file that is cut off, damaged, changed or sealed with another secret', async () => {
    await events(['export', 'whole.gz']);
    const packed = fs.readFileSync(inFolder('whole.gz'));
    const text = gunzipSync(packed).toString();
    fs.writeFileSync(inFolder('short.gz'), packed.subarray(0, -40));
    fs.writeFileSync(inFolder('short.ndjson'), text.slice(0, text.lastIndexOf('{"end"')));
    fs.writeFileSync(inFolder('changed.gz'), gzipSync(text.replace('"name": "Ada"', '"name": "Adb"')));
    for (const [file, sentence, more] of [
      ['short.gz', /short\.gz cannot be read: it is damaged, cut off/, {}],
      ['short.ndjson', /its end is missing/, {}],
      ['changed.gz', /^Line 2, tenant [^\n]+, stream "Contact-1", version 1, position \d+: LOG_EVENT_CHANGED/, {}],
      ['whole.gz', /AUTH_SECRET is another/, { AUTH_SECRET: 'another' }],
      ['no-such-file', /no-such-file cannot be read/, {}],
    ] as const) {
      const said = await events(['import', file], { ...env, ...more });
      expect(said).toMatchObject({ code: 1, err: expect.stringMatching(sentence) });
      expect(said.err).toMatch(/^[^\n]+\n$/);
    }
    expect(await rowsOf(copy, 'event_log')).toEqual([]);
    expect(await events(['import', 'whole.gz', '--unsealed'], { ...env, AUTH_SECRET: 'another' })).toMatchObject({
      code: 0,
    });
  });
});

it('asks the database of the Atomo that runs when DATABASE_URL is not set', async () => {
  const home = path.join(folder, 'running');
  fs.mkdirSync(home);
  const environment = { DATABASE_URL: '', ATOMO_HOME: home };
  expect(await events(['verify'], environment)).toMatchObject({
    code: 1,
    err: expect.stringMatching(/is not running/),
  });
  fs.writeFileSync(path.join(home, 'run.json'), JSON.stringify({ databaseUrl: database.url }));
  expect(await events(['verify'], environment)).toMatchObject({ code: 0 });
});

it.each([
  [[], /^Say what to do: [^\n]+\n$/],
  [['prove'], /^Say what to do: [^\n]+\n$/],
  [['verify', 'file'], /^Say what to do: [^\n]+\n$/],
  [['checkpoint'], /^Say what to do: [^\n]+\n$/],
  [['export'], /^Say what to do: [^\n]+\n$/],
  [['import'], /^Say what to do: [^\n]+\n$/],
  [['replay', 'file'], /^Say what to do: [^\n]+\n$/],
  [['export', 'file', '--again'], /^--again is nothing for export; [^\n]+\n$/],
  [['import', 'file', '--tenant', A], /^--tenant is nothing for import; [^\n]+\n$/],
  [['export', 'no/such/folder'], /no\/such\/folder cannot be written: [^\n]+\n$/],
  [['verify', '--loud'], /^Unknown option '--loud'; see npm run events -- --help\.\n$/],
  [['verify', '--tenant', 'acme'], /^--tenant acme is no id [^\n]+\n$/],
  [['verify', '--checkpoint', 'no-such-file'], /no-such-file cannot be read: [^\n]+\n$/],
  [['checkpoint', 'no/such/folder'], /no\/such\/folder cannot be written: [^\n]+\n$/],
])('%j is answered with one sentence', async (args, sentence) => {
  const said = await events(args);
  expect(said).toMatchObject({ code: 1, out: '' });
  expect(said.err).toMatch(sentence);
});

it('a database that is not one of Atomo is named as such', async () => {
  const empty = await aDatabase([], { poolSize: 1 });
  try {
    const said = await events(['verify'], { DATABASE_URL: empty.url });
    expect(said).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^This database is not one of this version of Atomo/),
    });
  } finally {
    await empty.drop();
  }
});
