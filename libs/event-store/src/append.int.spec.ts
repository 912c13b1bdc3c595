import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { NewEvent } from '@atomo-cc/events';
import type { Tx } from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { append, isStreamTaken, MAX_EVENT_BYTES, refusalOf, sendAppend, type ExpectedVersion } from './append.js';
import { Fence } from './fence.js';
import { readEvents } from './read.js';
import { eventStoreMigrations } from './schema.js';
import { verifyLog } from './verify.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const METADATA = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
const PRIVILEGE = expect.objectContaining({ code: '42501' });

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
});

afterAll(() => database?.drop());

const event = (n: number | string): NewEvent => ({ type: 'Thing.changed', schemaVersion: 1, data: { n } });
const newStream = () => `Thing-${uuidv7()}`;

/** Appends in a transaction of its own, which is rolled back after a conflict as the contract demands. */
async function appendTo(stream: string, expected: ExpectedVersion, events = [event(0)], tenant = A) {
  let result: Awaited<ReturnType<typeof append>> | undefined;
  await database.app
    .transaction(tenant, async (tx) => {
      result = await append(tx, tenant, [{ stream, expected, events, metadata: METADATA }]);
      if (!result.ok) throw new Error('conflict');
    })
    .catch((error: unknown) => {
      if (!result || result.ok) throw error;
    });
  return result!;
}

const rowsOf = (stream: string) =>
  database.asOwner<{ position: string; stream_version: number; data: { n: number } }>(
    'select position, stream_version, data from event_log where stream = $1 order by position',
    [stream],
  );

/** A promise and what fulfils it, for races that are driven by signals. */
function aSignal(): { promise: Promise<void>; give: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { promise, give: resolve };
}

/** True once `count` backends of this database wait for a lock. */
const someoneWaits = (count = 1) =>
  eventually('a backend waits for a lock', async () => {
    const [row] = await database.asOwner<{ n: number }>(
      `select count(*)::int as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return row!.n >= count;
  });

describe('expected versions', () => {
  it('any appends to a new and to an old stream, from version 1 on without gaps', async () => {
    const stream = newStream();
    const first = await appendTo(stream, 'any', [event(1), event(2)]);
    const second = await appendTo(stream, 'any', [event(3)]);
    expect(first).toMatchObject({ ok: true, events: [{ streamVersion: 1 }, { streamVersion: 2 }] });
    expect(second).toMatchObject({
      ok: true,
      events: [
        {
          tenant: A,
          stream,
          streamVersion: 3,
          type: 'Thing.changed',
          schemaVersion: 1,
          data: { n: 3 },
          metadata: METADATA,
        },
      ],
    });
    expect((await rowsOf(stream)).map((row) => [row.stream_version, row.data.n])).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
    ]);
  });

  it.each(['none', 0] as const)(
    '%s appends to a new stream only, and the conflict answers the current version',
    async (expected) => {
      const stream = newStream();
      expect(await appendTo(stream, expected, [event(1), event(2)])).toMatchObject({ ok: true });
      expect(await appendTo(stream, expected)).toEqual({ ok: false, stream, currentVersion: 2 });
      expect(await rowsOf(stream)).toHaveLength(2);
    },
  );

  it('an exact version appends there only, and the conflict answers the current version', async () => {
    const stream = newStream();
    expect(await appendTo(stream, 1)).toEqual({ ok: false, stream, currentVersion: 0 });
    await appendTo(stream, 'none', [event(1), event(2)]);
    expect(await appendTo(stream, 1)).toEqual({ ok: false, stream, currentVersion: 2 });
    expect(await appendTo(stream, 3)).toEqual({ ok: false, stream, currentVersion: 2 });
    expect(await appendTo(stream, 2)).toMatchObject({ ok: true, events: [{ streamVersion: 3 }] });
    expect(await rowsOf(stream)).toHaveLength(3);
  });

  it('of two who append at the same version at once, exactly one wins', async () => {
    const stream = newStream();
    await appendTo(stream, 'none');
    for (let version = 1; version <= 5; version += 1) {
      const results = await Promise.all([
        appendTo(stream, version),
        appendTo(stream, version),
        appendTo(stream, version),
      ]);
      expect(results.filter(({ ok }) => ok)).toHaveLength(1);
      expect(results.filter(({ ok }) => !ok)).toEqual(
        [1, 2].map(() => ({ ok: false, stream, currentVersion: version + 1 })),
      );
    }
  });

  it('of two who begin a stream at once, exactly one wins', async () => {
    const stream = newStream();
    const results = await Promise.all([appendTo(stream, 'none'), appendTo(stream, 'none')]);
    expect(results.filter(({ ok }) => ok)).toHaveLength(1);
  });
});

describe('one append', () => {
  it('takes several streams, all or none', async () => {
    const [one, two] = [newStream(), newStream()];
    await appendTo(two, 'none');
    const both = (expected: ExpectedVersion) =>
      database.app.transaction(A, async (tx) => {
        const result = await append(tx, A, [
          { stream: one, expected: 'any', events: [event('one')], metadata: METADATA },
          { stream: two, expected, events: [event('two')], metadata: METADATA },
        ]);
        if (!result.ok) throw Object.assign(new Error('conflict'), { result });
        return result;
      });
    await expect(both(7)).rejects.toMatchObject({ result: { ok: false, stream: two, currentVersion: 1 } });
    expect([await rowsOf(one), await rowsOf(two)].map(({ length }) => length)).toEqual([0, 1]);
    expect((await both(1)).ok).toBe(true);
    expect([await rowsOf(one), await rowsOf(two)].map(({ length }) => length)).toEqual([1, 2]);
  });

  it('leaves nothing when the transaction is rolled back, and the version can be used again', async () => {
    const stream = newStream();
    await expect(
      database.app.transaction(A, async (tx) => {
        await append(tx, A, [{ stream, expected: 'none', events: [event(1)], metadata: METADATA }]);
        throw new Error('changed my mind');
      }),
    ).rejects.toThrow('changed my mind');
    expect(await rowsOf(stream)).toEqual([]);
    expect(await appendTo(stream, 'none', [event(2)])).toMatchObject({ ok: true, events: [{ streamVersion: 1 }] });
  });

  it('gives positions that grow with versions, also under many appenders', async () => {
    const stream = newStream();
    await Promise.all(Array.from({ length: 30 }, (_, n) => appendTo(stream, 'any', [event(n), event(n)])));
    const rows = await rowsOf(stream);
    expect(rows.map((row) => row.stream_version)).toEqual(Array.from({ length: 60 }, (_, n) => n + 1));
  });

  it('keeps what JSON can hold as it was', async () => {
    const stream = newStream();
    const data = { text: 'é "quoted" \\ 👩‍🚀', number: 1.5, none: null, list: [1, { a: [] }], 'a key': "O'Brien $1 %s" };
    await appendTo(stream, 'none', [{ type: 'Thing.changed', schemaVersion: 7, data }]);
    const [read] = await database.app.transaction(A, (tx) =>
      readEvents(tx, A, { after: 0n, settled: 1n << 62n, stream, limit: 1 }),
    );
    expect(read).toMatchObject({ data, schemaVersion: 7 });
  });

  it('to the same streams in opposite orders waits for the other instead of deadlocking', async () => {
    const [one, two] = [newStream(), newStream()];
    const appendBoth = (streams: string[]) =>
      database.app.transaction(A, (tx) =>
        append(
          tx,
          A,
          streams.map((stream) => ({ stream, expected: 'any' as const, events: [event(0)], metadata: METADATA })),
        ),
      );
    const rounds = Array.from({ length: 40 }, (_, n) => appendBoth(n % 2 ? [one, two] : [two, one]));
    for (const result of await Promise.all(rounds)) expect(result.ok).toBe(true);
    expect((await rowsOf(one)).length + (await rowsOf(two)).length).toBe(80);
  });

  it('cannot put two events at one place of a stream, whatever way they come', async () => {
    const stream = newStream();
    await appendTo(stream, 'none');
    await expect(
      database.app.transaction(A, (tx) =>
        tx.execute(
          `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata)
           values (nextval('event_log_position'), $1, $2, 1, 'x', 1, '{}', '{}')`,
          [A, stream],
        ),
      ),
    ).rejects.toMatchObject({ code: '23505' });
  });
});

describe('the audit row of an event', () => {
  const auditOf = (stream: string) =>
    database.asOwner(
      `select a.tenant_id, a.actor, a.action, a.stream_version, a.fields, a.address,
              a.position = l.position and a.recorded_at = l.recorded_at as "isOfEvent"
       from audit_log a join event_log l using (tenant_id, stream, stream_version) where stream = $1 order by a.position`,
      [stream],
    );

  it('names who did what to which fields, sealed ones included, and holds no value', async () => {
    const stream = newStream();
    const data = { zip: '1', 'a "b" \\ {c},': 'x', $sealed: { fields: ['name', 'email'], box: 'AAAA' }, $other: 1 };
    await database.app.transaction(A, (tx) =>
      append(tx, A, [
        {
          stream,
          expected: 'none',
          events: [{ type: 'Thing.made', schemaVersion: 1, data }, event(1), { ...event(2), data: {} }],
          metadata: { ...METADATA, address: '192.0.2.7' },
        },
        { stream, expected: 'any', events: [event(3)], metadata: { ...METADATA, actor: 'user:2' } },
      ]),
    );
    const row = { tenant_id: A, actor: 'user:1', action: 'Thing.changed', address: '192.0.2.7', isOfEvent: true };
    expect(await auditOf(stream)).toEqual([
      { ...row, action: 'Thing.made', stream_version: 1, fields: ['a "b" \\ {c},', 'email', 'name', 'zip'] },
      { ...row, stream_version: 2, fields: ['n'] },
      { ...row, stream_version: 3, fields: [] },
      { ...row, actor: 'user:2', stream_version: 4, fields: ['n'], address: null },
    ]);
  });

  it('is gone when the append is rolled back', async () => {
    const stream = newStream();
    await database.app
      .transaction(A, async (tx) => {
        await append(tx, A, [{ stream, expected: 'none', events: [event(1)], metadata: METADATA }]);
        throw new Error('changed my mind');
      })
      .catch(() => undefined);
    expect(await database.asOwner('select 1 from audit_log where stream = $1', [stream])).toEqual([]);
  });
});

describe('what the log does not take', () => {
  const withData = (data: Record<string, unknown>): NewEvent => ({ type: 'Thing.changed', schemaVersion: 1, data });
  // {"t":"…"} has 8 bytes besides the text; é has 2, and a quote becomes 2.
  const sized = (bytes: number) => withData({ t: 'é'.repeat(1_000) + '"'.repeat(1_000) + 'x'.repeat(bytes - 4_008) });

  it.each([
    ['more bytes than the limit', sized(MAX_EVENT_BYTES + 1), 'EVENT_TOO_LARGE'],
    ['NUL in a text', withData({ t: 'a\0b' }), 'EVENT_NOT_STORABLE'],
    ['NUL deep in a list', withData({ t: [1, { u: ['\\\0'] }] }), 'EVENT_NOT_STORABLE'],
    ['NUL in a name', withData({ t: { 'a\0': 1 } }), 'EVENT_NOT_STORABLE'],
    ['half a surrogate pair in a text', withData({ t: [['\ud83d']] }), 'EVENT_NOT_STORABLE'],
    ['half a surrogate pair in a name', withData({ 't\udc00': 1 }), 'EVENT_NOT_STORABLE'],
    ['a number that JSON lacks', withData({ t: Number.NaN }), 'EVENT_NOT_STORABLE'],
  ])('%s is refused before anything is written', async (_name, refused, code) => {
    const stream = newStream();
    expect(refusalOf(refused)).toMatchObject({ code });
    await database.app.transaction(A, async (tx) => {
      const appended = append(tx, A, [{ stream, expected: 'any', events: [event(1), refused], metadata: METADATA }]);
      await expect(appended).rejects.toMatchObject({ name: 'CodedError', code });
      // The transaction is as it was: nothing has been asked of Postgres.
      expect(await tx.query('select 1 from event_streams where stream = $1', [stream])).toEqual([]);
    });
  });

  it('the largest event, and texts that only look like what cannot be stored, are kept as they are', async () => {
    const data = { t: '\\u0000 \\\\ud83d \u0001 \ud83d\udc4b', list: ['\\'], n: -0 };
    for (const accepted of [sized(MAX_EVENT_BYTES), withData(data)]) {
      const stream = newStream();
      expect(refusalOf(accepted)).toBeNull();
      await appendTo(stream, 'none', [accepted]);
      const [row] = await rowsOf(stream);
      expect(row!.data).toEqual({ ...accepted.data, ...(accepted.data['n'] !== undefined && { n: 0 }) });
    }
  });
});

describe('sendAppend', () => {
  const send = (stream: string, expected: ExpectedVersion, events = [event(0)]) =>
    database.app.transaction(A, (tx) => sendAppend(tx, A, [{ stream, expected, events, metadata: METADATA }]));

  it('appends to new and to old streams, and tells the time of the events', async () => {
    const [one, two] = [newStream(), newStream()];
    await send(one, 'none', [event(1), event(2)]);
    const result = await database.app.transaction(A, (tx) =>
      sendAppend(tx, A, [
        { stream: two, expected: 'none', events: [event(1)], metadata: METADATA },
        { stream: one, expected: 2, events: [event(3)], metadata: METADATA },
        { stream: two, expected: 1, events: [event(2)], metadata: METADATA },
      ]),
    );
    const rows = await database.asOwner<{ stream: string; stream_version: number; recorded_at: Date }>(
      'select stream, stream_version, recorded_at from event_log where stream = any($1) order by position',
      [[one, two]],
    );
    expect(rows.map((row) => [row.stream === one ? 1 : 2, row.stream_version])).toEqual([
      [1, 1],
      [1, 2],
      [2, 1],
      [1, 3],
      [2, 2],
    ]);
    expect(rows.slice(2).map((row) => row.recorded_at)).toEqual([0, 0, 0].map(() => result.ok && result.recordedAt));
    const heads = await database.asOwner(
      `select s.version = l.stream_version and s.hash = l.hash as "isLast" from event_streams s
       join lateral (select * from event_log where stream = s.stream order by stream_version desc limit 1) l on true
       where s.stream = any($1)`,
      [[one, two]],
    );
    expect(heads).toEqual([{ isLast: true }, { isLast: true }]);
  });

  it('to a stream that was to be new and is not fails at the commit, and keeps nothing', async () => {
    const stream = newStream();
    await appendTo(stream, 'none');
    const error = await send(stream, 'none').catch((fault: unknown) => fault);
    expect(isStreamTaken(error)).toBe(true);
    expect(await rowsOf(stream)).toHaveLength(1);
    expect(await send(stream, 5)).toEqual({ ok: false, stream, currentVersion: 1 });
  });

  it('takes the fence for new streams too', async () => {
    const fence = new Fence();
    const [sent, ended] = [aSignal(), aSignal()];
    const stream = newStream();
    const open = database.app.transaction(A, async (tx) => {
      await sendAppend(tx, A, [{ stream, expected: 'none', events: [event(0)], metadata: METADATA }]);
      await tx.query('select 1');
      sent.give();
      await ended.promise;
    });
    await sent.promise;
    await appendTo(newStream(), 'none');
    const mark = await database.app.transaction(A, (tx) => fence.advance(tx));
    ended.give();
    await open;
    expect(mark).toBeLessThan(BigInt((await rowsOf(stream))[0]!.position));
  });
});

describe('the log is append-only by privilege', () => {
  const statements = ["update event_log set data = '{}'", 'delete from event_log', 'truncate event_log'];

  it.each(statements)('neither role may %s', async (statement) => {
    await expect(database.app.transaction(A, (tx) => tx.execute(statement))).rejects.toEqual(PRIVILEGE);
    await expect(database.system.transaction((tx) => tx.execute(statement))).rejects.toEqual(PRIVILEGE);
  });

  it('no role may set the sequence back or give itself more', async () => {
    for (const statement of [
      `select setval('event_log_position', 1)`,
      'alter table event_log disable row level security',
      'drop table event_log',
    ]) {
      await expect(database.app.transaction(A, (tx) => tx.execute(statement))).rejects.toEqual(PRIVILEGE);
      await expect(database.system.transaction((tx) => tx.execute(statement))).rejects.toEqual(PRIVILEGE);
    }
  });

  it('the system role appends like any other, in the chain of the tenant', async () => {
    const [tenant, stream] = [uuidv7() as TenantId, newStream()];
    const appended = await database.system.transaction((tx) =>
      append(tx, tenant, [{ stream, expected: 'none', events: [event(0)], metadata: METADATA }]),
    );
    expect(appended).toMatchObject({ ok: true, events: [{ tenant, streamVersion: 1 }] });
    expect(await appendTo(stream, 1, [event(1)], tenant)).toMatchObject({ ok: true });
    const found = jest.fn();
    expect(await verifyLog(database.system, { tenant, onFault: found })).toMatchObject({ events: 2, broken: 0 });
    expect(found).not.toHaveBeenCalled();
  });
});

describe('tenants', () => {
  it("do not see one another's events and streams, and without a tenant nothing is seen", async () => {
    const stream = newStream();
    await appendTo(stream, 'none', [event('A')], A);
    expect(await appendTo(stream, 'none', [event('B')], B)).toMatchObject({ ok: true });
    const look = async (tx: Tx) => ({
      events: (await tx.query<{ data: object }>('select data from event_log where stream = $1', [stream])).map(
        ({ data }) => data,
      ),
      streams: (await tx.query('select 1 from event_streams where stream = $1', [stream])).length,
    });
    expect(await database.app.transaction(A, look)).toEqual({ events: [{ n: 'A' }], streams: 1 });
    expect(await database.app.transaction(B, look)).toEqual({ events: [{ n: 'B' }], streams: 1 });
    expect(await database.app.transaction('' as TenantId, look)).toEqual({ events: [], streams: 0 });
    const unset = await database.app.transaction(A, async (tx) => {
      await tx.query(`select set_config('app.tenant_id', null, true)`);
      return look(tx);
    });
    expect(unset).toEqual({ events: [], streams: 0 });
  });

  it('reading for another tenant gives nothing', async () => {
    const stream = newStream();
    await appendTo(stream, 'none', [event('A')], A);
    const filter = { after: 0n, settled: 1n << 62n, stream, limit: 10 };
    expect(await database.app.transaction(B, (tx) => readEvents(tx, A, filter))).toEqual([]);
    expect(await database.app.transaction(A, (tx) => readEvents(tx, A, filter))).toHaveLength(1);
  });

  it('appending for another tenant is refused', async () => {
    await expect(
      database.app.transaction(B, (tx) =>
        append(tx, A, [{ stream: newStream(), expected: 'any', events: [event(0)], metadata: METADATA }]),
      ),
    ).rejects.toEqual(PRIVILEGE);
  });
});

describe('readEvents', () => {
  it('filters by stream and type, pages by position, and ends at the settled mark', async () => {
    const stream = newStream();
    const typed = (n: number): NewEvent => ({
      type: n % 2 ? 'Thing.odd' : 'Thing.even',
      schemaVersion: 1,
      data: { n },
    });
    const result = await appendTo(stream, 'none', [0, 1, 2, 3, 4].map(typed));
    const positions = result.ok ? result.events.map(({ position }) => position) : [];
    const read = (filter: object) =>
      database.app.transaction(A, async (tx) => {
        const events = await readEvents(tx, A, { after: 0n, settled: 1n << 62n, stream, limit: 100, ...filter });
        return events.map(({ data }) => data['n']);
      });
    expect(await read({})).toEqual([0, 1, 2, 3, 4]);
    expect(await read({ types: ['Thing.odd'] })).toEqual([1, 3]);
    expect(await read({ types: [] })).toEqual([]);
    expect(await read({ after: positions[1], limit: 2 })).toEqual([2, 3]);
    expect(await read({ settled: positions[2] })).toEqual([0, 1, 2]);
    expect(await read({ stream: 'Thing-nobody' })).toEqual([]);
  });
});

describe('the fence', () => {
  const mark = (fence: Fence) => database.app.transaction(A, (tx) => fence.advance(tx));

  /** Appends and stays open until it is told how to end. */
  async function anOpenAppend(stream = newStream()) {
    const [appended, ended] = [aSignal(), aSignal()];
    let position = 0n;
    let isKept = true;
    const transaction = database.app
      .transaction(A, async (tx) => {
        const result = await append(tx, A, [{ stream, expected: 'any', events: [event(0)], metadata: METADATA }]);
        position = result.ok ? result.events[0]!.position : 0n;
        appended.give();
        await ended.promise;
        if (!isKept) throw new Error('rolled back');
      })
      .catch((error: unknown) => expect(error).toMatchObject({ message: 'rolled back' }));
    await appended.promise;
    const end = async (how: 'commit' | 'rollback') => {
      isKept = how === 'commit';
      ended.give();
      await transaction;
    };
    return { position, end };
  }

  it.each(['commit', 'rollback'] as const)('stays below an open append, and passes it after its %s', async (how) => {
    const fence = new Fence();
    const before = await mark(fence);
    const open = await anOpenAppend();
    const behind = await appendTo(newStream(), 'none');
    const last = behind.ok ? behind.events[0]!.position : 0n;
    expect(last).toBeGreaterThan(open.position);
    for (let look = 0; look < 3; look += 1) expect(await mark(fence)).toBeLessThan(open.position);
    expect(await mark(new Fence())).toBeLessThan(open.position);
    await open.end(how);
    expect(await mark(fence)).toBeGreaterThanOrEqual(last);
    expect(await mark(fence)).toBeGreaterThanOrEqual(before);
  });

  it('moves on although there is always some append under way', async () => {
    const fence = new Fence();
    let open = await anOpenAppend();
    for (let round = 0; round < 5; round += 1) {
      await mark(fence);
      const next = await anOpenAppend();
      await open.end('commit');
      const settled = await mark(fence);
      expect(settled).toBeGreaterThanOrEqual(open.position);
      expect(settled).toBeLessThan(next.position);
      open = next;
    }
    await open.end('rollback');
  });

  it('is not moved by an answer that was overtaken by another', async () => {
    // The slow looker reads its holders, then its answer is held back while an append begins and another looker sees it.
    const fence = new Fence();
    const first = await anOpenAppend();
    const [held, released] = [aSignal(), aSignal()];
    const slow = database.app.transaction(A, (tx) => {
      let asked = 0;
      const late = {
        prepared: async (sql: string, parameters?: unknown[]) => {
          const rows = await tx.prepared(sql, parameters);
          asked += 1;
          if (asked < 2) return rows;
          held.give();
          await released.promise;
          return rows;
        },
      };
      return fence.advance(late as unknown as Tx);
    });
    await held.promise;
    const second = await anOpenAppend();
    await first.end('commit');
    expect(await mark(fence)).toBeLessThan(second.position);
    released.give();
    expect(await slow).toBeLessThan(second.position);
    expect(await mark(fence)).toBeLessThan(second.position);
    await second.end('commit');
    expect(await mark(fence)).toBeGreaterThanOrEqual(second.position);
  });

  it('is not held up by an append in another database', async () => {
    const other = await aDatabase(eventStoreMigrations, { poolSize: 2 });
    try {
      const [isOpen, isOver] = [aSignal(), aSignal()];
      const bystander = other.app.transaction(A, async (tx) => {
        await append(tx, A, [{ stream: newStream(), expected: 'any', events: [event(0)], metadata: METADATA }]);
        isOpen.give();
        await isOver.promise;
      });
      await isOpen.promise;
      const appended = await appendTo(newStream(), 'none');
      const position = appended.ok ? appended.events[0]!.position : 0n;
      expect(await mark(new Fence())).toBeGreaterThanOrEqual(position);
      isOver.give();
      await bystander;
    } finally {
      await other.drop();
    }
  });

  it('is 0 before the first event', async () => {
    const fresh = await aDatabase(eventStoreMigrations, { poolSize: 1 });
    try {
      expect(await fresh.app.transaction(A, (tx) => new Fence().advance(tx))).toBe(0n);
    } finally {
      await fresh.drop();
    }
  });

  it('an appender waits for the one before it on the same stream, with the fence held', async () => {
    const stream = newStream();
    const open = await anOpenAppend(stream);
    const waiting = appendTo(stream, 'any');
    await someoneWaits();
    await open.end('commit');
    expect(await waiting).toMatchObject({ ok: true, events: [{ streamVersion: 2 }] });
  });
});
