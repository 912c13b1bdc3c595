import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { eventStoreMigrations, exportLog } from '@atomo-cc/event-store';
import { DEFAULT_TENANT_ID, type TenantId } from '@atomo-cc/kernel';
import { KeyRing } from '@atomo-cc/platform/encryption';
import { openSystemDatabase, sqlState, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import type { By } from './access-log.js';
import { accessEntities, accessMigrations } from './schema.js';
import { SECRET_KINDS, Secrets } from './secrets.js';
import { setSuspended } from './tenants.js';

const OTHER = '00000000-0000-7000-8000-0000000000bb' as TenantId;
const BY: By = { actor: 'user:1', address: '192.0.2.7', requestId: 'r1', reason: 'the mail import' };
const VALUE = 'sk-proj-0123456789abcdefghij-9Zq4';
const [FORMER, NEXT] = ['the former key, of thirty-two bytes', 'the next key, of thirty-two or more'];
/** More than one transaction of a rotation. */
const MANY = 520;

let database: TestDatabase;
let system: SystemDatabase;
let now = Date.parse('2026-03-01T10:00:00Z');
const clock = { now: () => now };
const secrets = new Secrets(new KeyRing(FORMER), clock);

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations], { poolSize: 6 });
  system = await openSystemDatabase({ url: database.url, service: 'test', entities: accessEntities });
  await database.asOwner(`insert into tenants (id, name, slug) values ($1, 'Other', 'other')`, [OTHER]);
});
afterEach(() => database.asOwner('delete from tenant_secrets'));
afterAll(async () => {
  await system?.close();
  await database?.drop();
});

const set = (name: string, value = VALUE, tenant = DEFAULT_TENANT_ID) =>
  secrets.set(database.app, tenant, name, value, BY);
const open = (name: string, tenant = DEFAULT_TENANT_ID, by = secrets) => by.open(system, tenant, name);

test('a secret is opened by workers and shown by its last characters alone, with when it was set and used', async () => {
  const shown = {
    name: 'openai',
    kind: 'openai',
    hint: '9Zq4',
    setBy: 'user:1',
    createdAt: new Date(now),
    updatedAt: new Date(now),
    usedAt: null,
  };
  expect(await set('openai')).toEqual(shown);
  now += 1_000;
  expect(await open('openai')).toBe(VALUE);
  now += 59_000;
  await open('openai');
  const usedAt = new Date(now - 59_000);
  expect(await secrets.list(database.app, DEFAULT_TENANT_ID)).toEqual([{ ...shown, usedAt }]);
  expect(await open('slack')).toBeNull();

  await set('openai', 'another, in its place: ü€😀');
  expect(await open('openai')).toBe('another, in its place: ü€😀');
  const anew = { ...shown, hint: ' ü€😀', updatedAt: new Date(now), usedAt: new Date(now) };
  expect(await secrets.list(database.app, DEFAULT_TENANT_ID)).toEqual([anew]);
  expect(await set('google/a-1', 'fifteen letters')).toMatchObject({ kind: 'google', hint: null });
});

test('neither the database, nor the log, nor an export of it has anything of a value', async () => {
  await set('slack/team-a');
  expect(await secrets.remove(database.app, DEFAULT_TENANT_ID, 'slack/team-a', BY)).toBe(true);
  expect(await secrets.remove(database.app, DEFAULT_TENANT_ID, 'slack/team-a', BY)).toBe(false);
  await set('slack/team-a');
  const events = await database.asOwner<object>(
    `select type, data, metadata from event_log where data ->> 'name' = 'slack/team-a' order by position`,
  );
  const said = { data: { name: 'slack/team-a' }, metadata: { actor: 'user:1', reason: 'the mail import' } };
  expect(events).toMatchObject([
    { ...said, type: 'access.secretSet' },
    { ...said, type: 'access.secretRemoved' },
    { ...said, type: 'access.secretSet' },
  ]);

  const [row] = await database.asOwner<{ wrapped: Buffer; sealed: Buffer }>('select * from tenant_secrets');
  const lines: string[] = [];
  const write = async (some: string) => void lines.push(some);
  await exportLog(system, { key: Buffer.alloc(32), write });
  const dump =
    JSON.stringify([await database.asOwner('select t::text from tenant_secrets t'), events]) + lines.join('');
  expect(dump).toContain('slack/team-a');
  for (const form of ['utf8', 'hex', 'base64', 'base64url'] as const) {
    expect(dump).not.toContain(Buffer.from(VALUE.slice(0, -4)).toString(form));
    for (const box of [row!.wrapped, row!.sealed]) expect(lines.join('')).not.toContain(box.toString(form));
  }
});

test('what was stored in the first form opens for ever', async () => {
  const golden = JSON.parse(fs.readFileSync(path.join(import.meta.dirname, 'golden/secret.1.json'), 'utf8'));
  await database.asOwner(
    `insert into tenant_secrets (tenant_id, name, wrapped, wrapped_by, sealed, set_by, created_at, updated_at)
     values ($1, $2, decode($3, 'base64'), $4, decode($5, 'base64'), 'user:1', now(), now())`,
    [golden.tenant, golden.name, golden.wrapped, golden.wrappedBy, golden.sealed],
  );
  const its = new Secrets(new KeyRing(golden.encryptionKey));
  expect(await open(golden.name, golden.tenant, its)).toBe(golden.value);
});

test.each<[what: string, change: string]>([
  ['moved to another tenant', `update tenant_secrets set tenant_id = '${OTHER}'`],
  ['given another name', `update tenant_secrets set name = 'google'`],
  ['altered', `update tenant_secrets set sealed = set_byte(sealed, 20, 255 - get_byte(sealed, 20))`],
  [
    'given the key and the value of another',
    `update tenant_secrets t set wrapped = o.wrapped, sealed = o.sealed from tenant_secrets o where o.name = 'slack'`,
  ],
  [
    'given the value of another',
    `update tenant_secrets t set sealed = o.sealed from tenant_secrets o where o.name = 'slack'`,
  ],
])('a row that was %s does not open', async (_what, change) => {
  await set('openai');
  await set('slack', VALUE);
  await database.asOwner(`${change}${change.includes(' from ') ? ` and t.name = 'openai'` : ` where name = 'openai'`}`);
  const [moved] = await database.asOwner<{ tenant_id: TenantId; name: string }>(
    `select tenant_id, name from tenant_secrets where name <> 'slack'`,
  );
  await expect(open(moved!.name, moved!.tenant_id)).rejects.toMatchObject({
    code: 'SEALED_DATA_BROKEN',
    message: expect.not.stringContaining(VALUE),
  });
});

test('who serves requests cannot read what is stored of a value, and another tenant has no part in it', async () => {
  await set('openai');
  for (const column of ['wrapped', 'wrapped_by', 'sealed', '*']) {
    const read = database.app.transaction(DEFAULT_TENANT_ID, (tx) => tx.query(`select ${column} from tenant_secrets`));
    expect(await read.catch(sqlState)).toBe('42501');
  }
  expect(await secrets.list(database.app, OTHER)).toEqual([]);
  expect(await secrets.remove(database.app, OTHER, 'openai', BY)).toBe(false);
  expect(await open('openai', OTHER)).toBeNull();
  await set('openai', 'of the other tenant', OTHER);
  expect(await open('openai')).toBe(VALUE);
});

test('a suspended tenant has no secrets to be used, and has them again after it', async () => {
  await set('openai', VALUE, OTHER);
  await setSuspended(system, OTHER, true, BY);
  expect(await open('openai', OTHER)).toBeNull();
  await setSuspended(system, OTHER, false, BY);
  expect(await open('openai', OTHER)).toBe(VALUE);
});

test.each<[name: string, value: string, field: string]>([
  ['', VALUE, 'name'],
  ['password', VALUE, 'name'],
  ['openai/', VALUE, 'name'],
  ['openai/Team', VALUE, 'name'],
  ['openai/../x', VALUE, 'name'],
  [`slack/${'x'.repeat(64)}`, VALUE, 'name'],
  ['slack\n', VALUE, 'name'],
  ['slack', '', 'value'],
  ['slack', `${VALUE}\n`, 'value'],
  ['slack', 'x'.repeat(16_385), 'value'],
  ['slack', 'half a character: \ud83d!', 'value'],
])('%j is refused with the value %.40j', async (name, value, field) => {
  const refused = await set(name, value).catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: 'VALIDATION_ERROR', details: { field } });
  if (value !== '') expect((refused as Error).message).not.toContain(value);
});

test('there is a name for each kind, and for several of it', async () => {
  for (const kind of SECRET_KINDS) {
    expect(await set(`${kind}/${randomUUID()}`)).toMatchObject({ kind });
    expect(await set(kind)).toMatchObject({ kind });
  }
  await set('slack', 'x'.repeat(16_384));
  expect(await open('slack')).toHaveLength(16_384);
});

test('a rotation wraps every secret anew while they are set and opened; interrupted, it goes on; then the former key is not needed', async () => {
  const names = Array.from({ length: MANY }, (_, n) => `google/${String(n).padStart(4, '0')}`);
  // A few at a time: whoever waits for a connection longer than ten seconds gets none.
  for (let from = 0; from < MANY; from += 20)
    await Promise.all(names.slice(from, from + 20).map((name) => set(name, `value of ${name}`)));
  const rotating = new Secrets(new KeyRing(NEXT, [FORMER]), clock);
  const last = names.at(-1)!;
  const [kept] = await database.asOwner<{ wrapped: Buffer }>(
    `update tenant_secrets set wrapped = '\\x01' where name = $1 returning (select wrapped from tenant_secrets where name = $1)`,
    [last],
  );
  await expect(rotating.rewrap(system)).rejects.toMatchObject({ code: 'SEALED_DATA_BROKEN' });
  const byKey = () => system.transaction((tx) => rotating.counts(tx));
  const former = new KeyRing(FORMER).id;
  const next = new KeyRing(NEXT).id;
  expect(new Map((await byKey()).map(({ id, secrets: count }) => [id, count]))).toEqual(
    new Map([
      [next, 500],
      [former, MANY - 500],
    ]),
  );
  await database.asOwner('update tenant_secrets set wrapped = $2 where name = $1', [last, kept!.wrapped]);

  // Processes with the former key as the accepted one, and with the former key still in use.
  const old = new Secrets(new KeyRing(FORMER, [NEXT]), clock);
  const [anew] = await Promise.all([
    rotating.rewrap(system),
    old.set(database.app, DEFAULT_TENANT_ID, names[0]!, 'set meanwhile', BY),
    ...names
      .slice(1, 40)
      .map(async (name) => expect(await open(name, DEFAULT_TENANT_ID, old)).toBe(`value of ${name}`)),
  ]);
  expect(anew).toBeGreaterThanOrEqual(MANY - 500);
  await rotating.rewrap(system);
  expect(await byKey()).toEqual([{ id: next, secrets: MANY }]);
  const after = new Secrets(new KeyRing(NEXT), clock);
  expect(await open(names[0]!, DEFAULT_TENANT_ID, after)).toBe('set meanwhile');
  expect(await open(last, DEFAULT_TENANT_ID, after)).toBe(`value of ${last}`);
  await expect(open(last)).rejects.toMatchObject({ code: 'ENCRYPTION_KEY_WRONG', details: { needed: next } });
  await expect(system.transaction((tx) => secrets.check(tx))).rejects.toMatchObject({
    code: 'ENCRYPTION_KEY_WRONG',
  });
}, 60_000);
