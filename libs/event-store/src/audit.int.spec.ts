import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { append } from './append.js';
import { MAX_AUDIT_LOOK, readAudit, type AuditEntry, type AuditFilter } from './audit.js';
import { readChanges } from './audit-changes.js';
import { eventStoreMigrations } from './schema.js';

const ALL = 1n << 61n;
/** A limit for a busy machine, not for the promise. */
jest.setTimeout(60_000);

let database: TestDatabase;
beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations, { poolSize: 2 });
});
afterAll(() => database?.drop());

const aTenant = () => uuidv7() as TenantId;

async function happen(tenant: TenantId, stream: string, type: string, data: object, metadata: object = {}) {
  const result = await database.app.transaction(tenant, (tx) =>
    append(tx, tenant, [
      {
        stream,
        expected: 'any',
        events: [{ type, schemaVersion: 1, data: { ...data } }],
        metadata: { actor: 'user:1', correlationId: 'c', causationId: 'd', ...metadata },
      },
    ]),
  );
  return (result as { events: readonly RecordedEvent[] }).events[0]!;
}
const read = (tenant: TenantId, filter: Partial<AuditFilter> = {}) =>
  database.app.transaction(tenant, (tx) => readAudit(tx, tenant, { settled: ALL, limit: 100, ...filter }));

it('every append writes a row for each event, in its transaction, with names and no values', async () => {
  const tenant = aTenant();
  const sealed = { subject: 'Contact-1', key: 1, fields: ['email', 'Ärger', 'name'], box: 'c2VjcmV0' };
  const event = await happen(
    tenant,
    'Contact-1',
    'Contact.created',
    { stage: 'Lead', a: 1, $sealed: sealed, $own: 1, name: null },
    { address: '10.1.2.3', correlationId: 'request 7' },
  );
  expect(await read(tenant)).toEqual({
    lookedTo: null,
    entries: [
      {
        position: event.position,
        at: event.recordedAt,
        actor: 'user:1',
        action: 'Contact.created',
        stream: 'Contact-1',
        streamVersion: 1,
        fields: ['a', 'email', 'name', 'stage', 'Ärger'],
        address: '10.1.2.3',
        requestId: 'request 7',
        reason: null,
      },
    ],
  });
  await database.app
    .transaction(tenant, async (tx) => {
      const metadata = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
      const events = [{ type: 'Contact.updated', schemaVersion: 1, data: {} }];
      await append(tx, tenant, [{ stream: 'Contact-1', expected: 1, events, metadata }]);
      throw new Error('rolled back');
    })
    .catch(() => undefined);
  expect((await read(tenant)).entries).toHaveLength(1);
  expect((await read(aTenant())).entries).toEqual([]);
});

it('may be added to, and by nobody be changed', async () => {
  for (const sql of ['update audit_log set actor = $1', 'delete from audit_log where actor = $1']) {
    await expect(database.app.transaction(aTenant(), (tx) => tx.execute(sql, ['x']))).rejects.toThrow(/permission/);
    await expect(database.system.transaction((tx) => tx.execute(sql, ['x']))).rejects.toThrow(/permission/);
  }
});

/** Rows without their events' cost: generated in one statement, with times that overtake each other as appends do. */
async function generate(tenant: TenantId, rows: number, first: number): Promise<AuditEntry[]> {
  const generated = await database.asOwner<AuditEntry & { version: number }>(
    `with g as materialized (
       select n, 'Thing-' || floor(random() * 4) as stream, 'Thing.' || floor(random() * random() * 5) as type,
              'user:' || floor(random() * random() * 4) as actor,
              (array['{"a": 1}', '{"b": 1}', '{"a": 1, "c": null}', '{"$sealed": {"fields": ["d"]}}'])[1 + floor(random() * 4)]::jsonb as data,
              date_trunc('milliseconds', timestamptz '2026-01-01' + n * interval '20 seconds' - random() * interval '60 seconds') as at
       from generate_series($2::int, $2 + $3 - 1) n
     ), logged as (
       insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at)
       select n, $1::uuid, stream, row_number() over (partition by stream order by n), type, 1, data, jsonb_build_object('actor', actor), at from g
       returning *
     )
     insert into audit_log select tenant_id, position, recorded_at, metadata->>'actor', type, stream, stream_version,
       case when data ? '$sealed' then array['d'] else (select array_agg(k order by k) from jsonb_object_keys(data) k) end, null
     from logged returning position, recorded_at as at, actor, action, stream, stream_version as "streamVersion", fields, address`,
    [tenant, first, rows],
  );
  return generated
    .map((entry) => ({ ...entry, position: BigInt(entry.position), requestId: null, reason: null }))
    .toSorted((a, b) => Number(b.position - a.position));
}

it('answers any question as going through all rows would, page by page', async () => {
  const seed = Number(process.env['AUDIT_SEED'] ?? Date.now() % 1_000_000);
  process.stdout.write(`audit questions, AUDIT_SEED=${seed}\n`);
  let state = seed;
  // mulberry32
  const random = (below: number) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
  const tenant = aTenant();
  const rows = await generate(tenant, 600, 1_000_000);
  await generate(aTenant(), 100, 2_000_000);
  const at = () => new Date(Date.parse('2026-01-01') + (1_000_000 + random(700) - 50) * 20_000);
  for (let n = 0; n < 150; n += 1) {
    const settled = random(4) ? ALL : 1_000_000n + BigInt(random(600));
    const filter = {
      actor: random(2) ? `user:${random(4)}` : null,
      actions: random(2) ? Array.from({ length: random(4) }, () => `Thing.${random(6)}`) : null,
      stream: random(3) ? null : `Thing-${random(5)}`,
      fields: random(3) ? null : [['a'], ['b', 'd'], ['c'], ['none']][random(4)]!,
      from: random(3) ? null : at(),
      to: random(3) ? null : at(),
    };
    const expected = rows.filter(
      (row) =>
        row.position <= settled &&
        (filter.actor === null || row.actor === filter.actor) &&
        (filter.actions === null || filter.actions.includes(row.action)) &&
        (filter.stream === null || row.stream === filter.stream) &&
        (filter.fields === null || filter.fields.some((field) => row.fields.includes(field))) &&
        (filter.from === null || row.at >= filter.from) &&
        (filter.to === null || row.at < filter.to),
    );
    const seen: AuditEntry[] = [];
    const limit = 1 + random(40);
    for (let after: bigint | null = null; ;) {
      const page = await read(tenant, { ...filter, settled, limit, after });
      seen.push(...page.entries);
      expect(page.entries.length).toBeLessThanOrEqual(limit);
      if (page.entries.length < limit && page.lookedTo === null) break;
      after = page.lookedTo ?? page.entries.at(-1)!.position;
    }
    expect({ seed, n, filter, seen }).toEqual({ seed, n, filter, seen: expected });
  }
});

it('looks through no more rows than it may for one page, and says where it stopped', async () => {
  const tenant = aTenant();
  const rows = await generate(tenant, MAX_AUDIT_LOOK + 500, 3_000_000);
  await database.asOwner(`update audit_log set fields = '{rare}' where tenant_id = $1 and position = 3000100`, [
    tenant,
  ]);
  const first = await read(tenant, { fields: ['rare'] });
  expect(first).toEqual({ entries: [], lookedTo: rows[MAX_AUDIT_LOOK - 1]!.position });
  const second = await read(tenant, { fields: ['rare'], after: first.lookedTo });
  expect(second.entries.map(({ position }) => position)).toEqual([3_000_100n]);
  expect(second.lookedTo).toBeNull();
});

it('leaves none out where several actions are looked through, each to its own place', async () => {
  const tenant = aTenant();
  const rows = await generate(tenant, 6_000, 5_000_000);
  await database.asOwner(`update audit_log set fields = '{rare}' where tenant_id = $1 and position % 397 = 0`, [
    tenant,
  ]);
  const rare = rows.filter(({ position }) => position % 397n === 0n);
  for (const filter of [
    { actions: ['Thing.0', 'Thing.1', 'Thing.4'] },
    { actor: 'user:0' },
    { actor: 'user:0', actions: ['Thing.0', 'Thing.4'] },
    { stream: 'Thing-1' },
  ] as Partial<AuditFilter>[]) {
    const expected = rare.filter(
      (row) =>
        (filter.actions ?? [row.action]).includes(row.action) &&
        (filter.actor ?? row.actor) === row.actor &&
        (filter.stream ?? row.stream) === row.stream,
    );
    const seen: bigint[] = [];
    for (let after: bigint | null = null; ;) {
      const page = await read(tenant, { ...filter, fields: ['rare'], limit: 4, after });
      seen.push(...page.entries.map(({ position }) => position));
      if (page.entries.length < 4 && page.lookedTo === null) break;
      after = page.lookedTo ?? page.entries.at(-1)!.position;
    }
    expect([filter, seen]).toEqual([filter, expected.map(({ position }) => position)]);
  }
});

describe('what changed', () => {
  const changesOf = async (
    tenant: TenantId,
    filter: Partial<AuditFilter>,
    decoder: Parameters<typeof readChanges>[3],
  ) =>
    database.app.transaction(tenant, async (tx) => {
      const { entries } = await readAudit(tx, tenant, { settled: ALL, limit: 100, ...filter });
      const changes = await readChanges(tx, tenant, entries, decoder);
      return entries.map(({ position }) => changes.get(position)!.map((c) => [c.field, c.before, c.after]));
    });

  it('has the value of the last earlier event of the stream that names the field, also beyond the page', async () => {
    const tenant = aTenant();
    await happen(tenant, 'Thing-1', 'Thing.created', { a: 1, b: 'x', toString: 1 });
    await happen(tenant, 'Thing-2', 'Thing.created', { a: 100 });
    await happen(tenant, 'Thing-1', 'Thing.updated', { b: 'y' });
    await happen(tenant, 'Thing-1', 'Thing.rare', { a: null, c: [1] });
    await happen(tenant, 'Thing-1', 'Thing.rare', { a: 3 });
    expect(await changesOf(tenant, { actions: ['Thing.rare'] }, null)).toEqual([
      [['a', null, 3]],
      [
        ['a', 1, null],
        ['c', null, [1]],
      ],
    ]);
    expect((await changesOf(tenant, {}, null)).flat()).toContainEqual(['b', 'x', 'y']);
  });

  it('has sealed values where the decoder opens them, and nulls where it cannot', async () => {
    const tenant = aTenant();
    const sealed = (box: string) => ({ $sealed: { subject: 'Thing-1', key: 1, fields: ['email'], box } });
    await happen(tenant, 'Thing-1', 'Thing.created', { a: 1, ...sealed('one') });
    await happen(tenant, 'Thing-1', 'Thing.updated', sealed('two'));
    const opened = {
      decode: async (_tx: unknown, events: readonly RecordedEvent[]) =>
        events.map((event) => ({
          ...event,
          data: { ...event.data, email: (event.data['$sealed'] as { box: string }).box },
        })),
    };
    expect(await changesOf(tenant, {}, opened)).toEqual([
      [['email', 'one', 'two']],
      [
        ['a', null, 1],
        ['email', null, 'one'],
      ],
    ]);
    expect((await changesOf(tenant, {}, null))[0]).toEqual([['email', null, null]]);
  });

  it('takes two statements for a page however many streams it has', async () => {
    const tenant = aTenant();
    for (let n = 0; n < 30; n += 1) await happen(tenant, `Thing-${n % 12}`, 'Thing.updated', { a: n, b: n });
    await database.app.transaction(tenant, async (tx) => {
      const { entries } = await readAudit(tx, tenant, { settled: ALL, limit: 100 });
      const query = jest.spyOn(tx, 'query');
      expect((await readChanges(tx, tenant, entries, null)).size).toBe(30);
      expect(query).toHaveBeenCalledTimes(2);
    });
  });
});
