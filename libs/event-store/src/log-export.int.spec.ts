import fs from 'node:fs';
import path from 'node:path';
import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import { APP_ROLE, migrate, openSystemDatabase, SYSTEM_ROLE } from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { append } from './append.js';
import { Fence } from './fence.js';
import { keepAnswers } from './idempotency.js';
import { checkpointKey } from './log-checkpoint.js';
import { exportLog } from './log-export.js';
import { importLog } from './log-import.js';
import { eventStoreMigrations } from './schema.js';
import { verifyLog } from './verify.js';

const KEY = checkpointKey('the secret of this test');
const [A, B] = ['00000000-0000-7000-8000-00000000000a', '00000000-0000-7000-8000-00000000000b'] as [TenantId, TenantId];
const TABLES = ['event_log', 'event_streams', 'subject_keys', 'command_answers'];
/** A limit for a busy machine, not for the promise. */
jest.setTimeout(60_000);

let source: TestDatabase;
let target: TestDatabase;
beforeAll(async () => {
  source = await aDatabase(eventStoreMigrations, { poolSize: 3 });
  for (const [n, tenant] of [A, B, A, A, B].entries()) {
    await happen(tenant, [`Contact-${n % 2}`, 'Deal-"\u2028\u0001ß'], {
      n,
      text: 'line\n\u2028\u2029 "quoted" 😀',
      at: 1.5e300,
      zero: 0,
    });
    await source.app.transaction(tenant, async (tx) =>
      keepAnswers(tx, tenant, [{ key: `key ${n}`, fingerprint: 'f', recordId: uuidv7(), version: n }]),
    );
  }
  await source.asOwner(
    `insert into subject_keys (tenant_id, subject, generation, wrapped, wrapped_by, destroyed_at)
     values ($1, 'Contact-0', 1, null, 'k1', now()), ($1, 'Contact-0', 2, '\\x00ff10', 'k1', null), ($2, 'Contact-0', 1, '\\x01', 'k2', null)`,
    [A, B],
  );
  // Older than the chain, as a database from before it has them; and a time with microseconds.
  await source.asOwner(
    `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at)
     values (nextval('event_log_position'), $1, 'Old-1', 1, 'Old.made', 1, '{"n": 12345678901234567890.50}', '{"actor": "user:1"}', '2020-01-01 00:00:00.123456Z')`,
    [A],
  );
  await source.asOwner(`insert into event_streams values ($1, 'Old-1', 1, '')`, [A]);
});
afterAll(() => source?.drop());
beforeEach(async () => {
  target = await aDatabase(eventStoreMigrations, { poolSize: 2 });
});
afterEach(() => target?.drop());

function happen(tenant: TenantId, streams: readonly string[], data: object, database = source) {
  const events = [{ type: 'Thing.changed', schemaVersion: 1, data: { ...data } }];
  const metadata = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
  return database.app.transaction(tenant, (tx) =>
    append(
      tx,
      tenant,
      streams.map((stream) => ({ stream, expected: 'any' as const, events, metadata })),
    ),
  );
}

async function exported(tenant?: TenantId): Promise<string[]> {
  let text = '';
  await exportLog(source.system, { key: KEY, tenant, write: (lines) => void (text += lines) });
  expect(text.endsWith('\n')).toBe(true);
  return text.slice(0, -1).split('\n');
}
async function* each(lines: readonly string[]) {
  yield* lines;
}
const importing = (lines: readonly string[], key: Buffer | null = KEY) => importLog(target.url, each(lines), { key });
const rowsOf = (database: TestDatabase, table: string, tenant?: TenantId) =>
  database.asOwner(
    `select to_jsonb(t)::text as row from ${table} t where $1::uuid is null or tenant_id = $1 order by to_jsonb(t)::text collate "C"`,
    [tenant ?? null],
  );
async function expectNothing() {
  for (const table of TABLES) expect(await rowsOf(target, table)).toEqual([]);
}

it('an import makes the tables what they were, row for row, with sound chains, and appends go on', async () => {
  const lines = await exported();
  expect(await importing(lines)).toMatchObject({ keys: 3, answers: 5, events: 11, header: { tenant: null } });
  for (const table of TABLES) expect(await rowsOf(target, table)).toEqual(await rowsOf(source, table));
  const faults: unknown[] = [];
  const totals = await verifyLog(target.system, { onFault: (fault) => faults.push(fault) });
  expect({ totals, faults }).toMatchObject({ totals: { events: 11, unchained: 1, broken: 0 }, faults: [] });

  const last = (await target.asOwner<{ last: string }>('select max(position) as last from event_log'))[0]!.last;
  const result = await happen(A, ['Contact-0'], { n: 9 }, target);
  expect(result.ok && result.events[0]!.position > BigInt(last)).toBe(true);
  expect(await verifyLog(target.system, { onFault: (fault) => faults.push(fault) })).toMatchObject({ broken: 0 });
  expect(
    await target.asOwner(`select relname from pg_class where relname = any($1) and not relforcerowsecurity`, [TABLES]),
  ).toEqual([]);
});

it('needs no more of the streams in memory than it may, and comes to the same', async () => {
  await importLog(target.url, each(await exported()), { key: KEY, maxHeads: 0, linesPerWrite: 2 });
  for (const table of TABLES) expect(await rowsOf(target, table)).toEqual(await rowsOf(source, table));
});

it('needs a login that owns the tables, and no superuser; the running roles cannot do what it does', async () => {
  const lines = await exported();
  const [owner, name] = [`importer_${process.pid}`, `imported_${process.pid}`];
  await target.asOwner(`create role ${owner} login createrole password 'p'`);
  await target.asOwner(`grant ${APP_ROLE}, ${SYSTEM_ROLE} to ${owner} with admin true, set false, inherit false`);
  await target.asOwner(`create database ${name} owner ${owner}`);
  try {
    const url = Object.assign(new URL(target.url), { username: owner, password: 'p', pathname: name });
    await migrate(url.href, eventStoreMigrations);
    expect(await importLog(url.href, each(lines), { key: KEY })).toMatchObject({ events: 11 });
    await expect(importLog(url.href, each(lines), { key: KEY })).rejects.toMatchObject({ code: 'LOG_NOT_EMPTY' });
    const system = await openSystemDatabase({ url: url.href, service: 'test', poolSize: 1 });
    const seen = system.transaction((tx) => tx.query('select count(*)::int as n from event_log'));
    expect(await seen.finally(() => system.close())).toEqual([{ n: 11 }]);
  } finally {
    await target.asOwner(`drop database ${name} with (force)`);
    await target.asOwner(`drop role ${owner}`);
  }
  const moved = `select setval('event_log_position', 1)`;
  await expect(target.system.transaction((tx) => tx.execute(moved))).rejects.toThrow(/permission denied/);
  await expect(target.app.transaction(A, (tx) => tx.execute(moved))).rejects.toThrow(/permission denied/);
});

it('the settled mark stays below the positions of an import until they are there', async () => {
  const lines = await exported();
  const read = Promise.withResolvers<void>();
  const told = Promise.withResolvers<void>();
  async function* held() {
    yield* lines.slice(0, -1);
    read.resolve();
    await told.promise;
    yield lines.at(-1)!;
  }
  const over = importLog(target.url, held(), { key: KEY });
  await read.promise;
  await target.asOwner(`select setval('event_log_position', 1000)`);
  const fence = new Fence();
  for (let n = 0; n < 3; n += 1) expect(await target.system.transaction((tx) => fence.advance(tx))).toBe(0n);
  told.resolve();
  await over;
  expect(await target.system.transaction((tx) => fence.advance(tx))).toBe(1000n);
});

it('one tenant alone is exported, and comes into an empty log, or behind all others', async () => {
  const lines = await exported(B);
  expect(lines.join()).not.toContain(A);
  expect(await importing(lines)).toMatchObject({ keys: 1, answers: 2, events: 4, header: { tenant: B } });
  for (const table of TABLES) expect(await rowsOf(target, table)).toEqual(await rowsOf(source, table, B));
  // A's positions lie among those of B, which every projection is past by now.
  await expect(importing(await exported(A))).rejects.toMatchObject({ code: 'LOG_NOT_EMPTY' });
  expect(await rowsOf(target, 'event_log', A)).toEqual([]);

  const C = uuidv7() as TenantId;
  await happen(C, ['Contact-1'], { n: 1 });
  expect(await importing(await exported(C))).toMatchObject({ events: 1 });
  expect(await rowsOf(target, 'event_log', C)).toEqual(await rowsOf(source, 'event_log', C));
  await source.asOwner('delete from event_log where tenant_id = $1', [C]);
  await source.asOwner('delete from event_streams where tenant_id = $1', [C]);
});

it('a log that is not empty is left as it is', async () => {
  const lines = await exported();
  await importing(lines);
  await expect(importing(lines)).rejects.toMatchObject({ code: 'LOG_NOT_EMPTY' });
  await expect(importing(await exported(A))).rejects.toMatchObject({ code: 'LOG_NOT_EMPTY' });
  expect(await rowsOf(target, 'event_log')).toHaveLength(11);
});

it('any byte that was changed is found, and nothing is imported', async () => {
  const lines = await exported();
  const text = lines.join('\n');
  for (let at = 0; at < text.length; at += 397) {
    const changed = `${text.slice(0, at)}${text[at] === '1' ? '2' : '1'}${text.slice(at + 1)}`;
    await expect(importing(changed.split('\n'))).rejects.toMatchObject({
      code: expect.stringMatching(/^LOG_EXPORT_(INVALID|BROKEN|TOO_NEW)$/),
    });
  }
  await expectNothing();
});

it('a changed event is named with its line, also where the seal is not asked for', async () => {
  const lines = await exported();
  const at = lines.findIndex((line) => line.includes('"n": 3'));
  const event = (JSON.parse(lines[at]!) as { event: { position: string } }).event;
  const changed = lines.with(at, lines[at]!.replace('"n": 3', '"n": 4'));
  for (const key of [KEY, null]) {
    await expect(importing(changed, key)).rejects.toMatchObject({
      code: 'LOG_EXPORT_BROKEN',
      message: expect.stringMatching(
        `^Line ${at + 1}, tenant ${A}, stream "Contact-1", version \\d, position ${event.position}: LOG_EVENT_CHANGED`,
      ),
    });
  }
  await expectNothing();
});

it.each([
  ['without its last line', (lines: string[]) => lines.slice(0, -1), /its end is missing/],
  [
    'cut in the middle of a line',
    (lines: string[]) => [...lines.slice(0, 8), lines[8]!.slice(0, 40)],
    /line 9 is no line/,
  ],
  ['without an event', (lines: string[]) => lines.toSpliced(10, 1), /LOG_EVENT_MISSING|seal is wrong/],
  ['without a key', (lines: string[]) => lines.toSpliced(1, 1), /seal is wrong/],
  ['with a line behind its end', (lines: string[]) => [...lines, lines[5]!], /something follows/],
  ['with two events exchanged', (lines: string[]) => lines.with(9, lines[10]!).with(10, lines[9]!), /LOG_/],
  ['with a key twice', (lines: string[]) => lines.toSpliced(1, 0, lines[1]!), /what no log can hold/],
  ['that is something else', () => ['{"format":"atomo-event-checkpoint","version":1}'], /first line/],
  ['that is empty', () => [], /its end is missing/],
  [
    'of a newer version',
    (lines: string[]) => lines.with(0, lines[0]!.replace('"version":1', '"version":2')),
    /version 2 of the format, and this Atomo reads up to 1/,
  ],
])('a file %s is refused, and nothing is imported', async (_name, change, sentence) => {
  await expect(importing(change(await exported()))).rejects.toThrow(sentence);
  await expectNothing();
});

it('a seal of another secret is refused, unless it is not asked for', async () => {
  const lines = await exported();
  await expect(importing(lines, checkpointKey('another'))).rejects.toThrow(/AUTH_SECRET is another/);
  expect(await importing(lines, null)).toMatchObject({ events: 11 });
});

it('an export holds whole commands: what is open when it begins has no part in it', async () => {
  const told = Promise.withResolvers<void>();
  const appended = Promise.withResolvers<void>();
  const over = source.app
    .transaction(A, async (tx) => {
      const metadata = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
      const events = [{ type: 'Thing.changed', schemaVersion: 1, data: {} }];
      await append(tx, A, [{ stream: 'Open-1', expected: 'any', events, metadata }]);
      await keepAnswers(tx, A, [{ key: 'open', fingerprint: 'f', recordId: uuidv7(), version: 1 }]);
      appended.resolve();
      await told.promise;
      throw new Error('rolled back');
    })
    .catch(() => undefined);
  await appended.promise;
  const lines = await exported();
  told.resolve();
  await over;
  expect(lines.join()).not.toContain('open');
  expect(await importing(lines)).toMatchObject({ events: 11 });
});

it('the next page is read only when the lines before are taken', async () => {
  let writes = 0;
  const gate = Promise.withResolvers<void>();
  const over = exportLog(source.system, {
    key: KEY,
    write: () => {
      writes += 1;
      return gate.promise;
    },
  });
  await eventually('a first page', () => writes === 1);
  // As much time as it would need for more.
  for (let look = 0; look < 20; look += 1) await source.asOwner('select count(*) from event_log');
  expect(writes).toBe(1);
  gate.resolve();
  await over;
  expect(writes).toBe(5);
});

it('reads a file of version 1 for ever', async () => {
  const golden = fs.readFileSync(path.join(import.meta.dirname, '../golden/log-export-1.ndjson'), 'utf8');
  const lines = golden.slice(0, -1).split('\n');
  expect(await importing(lines)).toMatchObject({ keys: 1, answers: 1, events: 3 });
  expect(
    await target.asOwner('select stream, stream_version, data, recorded_at from event_log order by position'),
  ).toMatchObject([
    { stream: 'Contact-1', stream_version: 1, data: { name: 'Ada', $sealed: { key: 1 } } },
    { stream: 'Contact-2', stream_version: 1, data: { name: 'Bob' } },
    { stream: 'Contact-1', stream_version: 2, data: { stage: 'Won' } },
  ]);
  expect(await verifyLog(target.system, { onFault: () => undefined })).toMatchObject({ events: 3, broken: 0 });
  // What is written today is the same, but for the moment of the export and the seal over it.
  let text = '';
  await exportLog(target.system, { key: KEY, write: (more) => void (text += more) });
  expect(text.split('\n').slice(1, -2)).toEqual(lines.slice(1, -1));
});
