import type { QueryRunner } from 'typeorm';
import { type TenantId } from '@atomo-cc/kernel';
import { aCable, aDatabase, eventually, type Cable, type CutAt, type TestDatabase } from '@atomo-cc/testing';
import { booleanArray, byteaArray, doubleArray, intArray, jsonArray, textArray, timestampArray } from './arrays.js';
import {
  APP_ROLE,
  fateOf,
  openAppDatabase,
  openSystemDatabase,
  SYSTEM_ROLE,
  type AppDatabase,
  type SystemDatabase,
} from './database.js';
import { sqlState, violatedConstraint } from './errors.js';
import { Leases1700000001000, releaseLease, takeLease } from './lease.js';
import { changeTables, describeConnectFault, migrate, runAll, tenantTable } from './migrate.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const OLD_SECOND = `clock_timestamp() - interval '1 second'`;

class Things1700000009000 {
  name = 'Things1700000009000';
  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      'create table things (id int, tenant_id uuid not null)',
      ...tenantTable('things', { app: 'select, insert, update, delete', system: 'select' }),
    ]);
  }
  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table things');
  }
}
const MIGRATIONS = [Leases1700000001000, Things1700000009000];

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase(MIGRATIONS, { poolSize: 2 });
});

afterAll(() => database?.drop());

beforeEach(() => database.asOwner('truncate things, leases'));

const settingOf = `select current_user::text as user, current_setting('app.tenant_id', true) as tenant, pg_backend_pid() as pid`;

describe('the roles', () => {
  it('can neither log in nor get round row-level security', async () => {
    const roles = await database.asOwner(
      `select rolname, rolsuper, rolbypassrls, rolcanlogin, rolcreaterole, rolcreatedb from pg_roles where rolname = any($1) order by 1`,
      [[APP_ROLE, SYSTEM_ROLE]],
    );
    const nothing = {
      rolsuper: false,
      rolbypassrls: false,
      rolcanlogin: false,
      rolcreaterole: false,
      rolcreatedb: false,
    };
    expect(roles).toEqual([
      { rolname: APP_ROLE, ...nothing },
      { rolname: SYSTEM_ROLE, ...nothing },
    ]);
  });

  it('are what the pools run under, from the first statement on', async () => {
    const app = await database.app.transaction(A, (tx) => tx.query(settingOf));
    const system = await database.system.transaction((tx) => tx.query(settingOf));
    expect([app[0]!['user'], system[0]!['user']]).toEqual([APP_ROLE, SYSTEM_ROLE]);
  });

  it('row-level security is forced on a tenant table', async () => {
    expect(
      await database.asOwner(`select relrowsecurity, relforcerowsecurity from pg_class where relname = 'things'`),
    ).toEqual([{ relrowsecurity: true, relforcerowsecurity: true }]);
  });
});

describe('the tenant of a transaction', () => {
  it('does not leak to the next one of the same connection, neither after commit nor after rollback', async () => {
    const single = await openAppDatabase({ url: database.url, service: 'test', poolSize: 1 });
    try {
      const [first] = await single.transaction(A, (tx) => tx.query(settingOf));
      expect(first).toMatchObject({ tenant: A });
      await expect(
        single.transaction(B, async () => {
          throw new Error('rolled back');
        }),
      ).rejects.toThrow('rolled back');
      const source = (single as unknown as { source: { query(sql: string): Promise<unknown[]> } }).source;
      const [outside] = await source.query(settingOf);
      expect(outside).toEqual({ user: APP_ROLE, tenant: '', pid: first!['pid'] });
    } finally {
      await single.close();
    }
  });

  it('sees and writes its own rows only', async () => {
    await database.app.transaction(A, (tx) => tx.execute('insert into things values (1, $1)', [A]));
    await database.app.transaction(B, (tx) => tx.execute('insert into things values (2, $1)', [B]));
    expect(await database.app.transaction(A, (tx) => tx.query('select id from things'))).toEqual([{ id: 1 }]);
    expect(await database.app.transaction('' as TenantId, (tx) => tx.query('select id from things'))).toEqual([]);
    expect(await database.app.transaction(A, (tx) => tx.execute('update things set id = 9'))).toBe(1);
    expect(await database.app.transaction(A, (tx) => tx.execute('delete from things where id = 2'))).toBe(0);
    await expect(
      database.app.transaction(A, (tx) => tx.execute('insert into things values (3, $1)', [B])),
    ).rejects.toThrow(/row-level security/);
    await expect(
      database.app.transaction(A, (tx) => tx.execute('update things set tenant_id = $1', [B])),
    ).rejects.toThrow(/row-level security/);
    expect(await database.system.transaction((tx) => tx.query('select id from things order by id'))).toEqual([
      { id: 2 },
      { id: 9 },
    ]);
  });

  it('an error rolls everything back', async () => {
    await expect(
      database.app.transaction(A, async (tx) => {
        await tx.execute('insert into things values (1, $1)', [A]);
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(await database.asOwner('select * from things')).toEqual([]);
  });
});

describe('Tx', () => {
  it('answers rows of a returning statement, and counts what it changed', async () => {
    await database.app.transaction(A, async (tx) => {
      expect(await tx.query('insert into things values (1, $1), (2, $1) returning id', [A])).toEqual([
        { id: 1 },
        { id: 2 },
      ]);
      expect(await tx.query('update things set id = id + 1 returning id')).toHaveLength(2);
      expect(await tx.execute('delete from things where id = 3')).toBe(1);
      expect(await tx.execute('delete from things where id = 77')).toBe(0);
    });
  });
});

/** What a promise was rejected with. */
const faultOf = (promise: Promise<unknown>) =>
  promise.then(
    () => null,
    (error: unknown) => error,
  );

describe('Tx.prepared', () => {
  it('parses a text once per connection, and answers as query does', async () => {
    const single = await openAppDatabase({ url: database.url, service: 'test', poolSize: 1 });
    try {
      for (const n of [1, 2]) {
        const found = await single.transaction(A, async (tx) => {
          expect(await tx.prepared('select $1::int + 1 as n', [n])).toEqual([{ n: n + 1 }]);
          return tx.query(`select 1 from pg_prepared_statements where statement like 'select $1::int + 1%'`);
        });
        expect(found).toHaveLength(1);
      }
    } finally {
      await single.close();
    }
  });
});

describe('Tx.send', () => {
  it('takes effect before what is called after it, and is committed', async () => {
    const seen = await database.app.transaction(A, async (tx) => {
      tx.send('insert into things values ($1, $2)', [1, A]);
      const rows = await tx.query('select id from things');
      tx.send('insert into things values ($1, $2)', [2, A]);
      return rows;
    });
    expect(seen).toEqual([{ id: 1 }]);
    expect(await database.asOwner('select id from things order by id')).toEqual([{ id: 1 }, { id: 2 }]);
  });

  it('that fails fails the transaction with its error, and nothing is kept', async () => {
    const last = database.app.transaction(A, async (tx) => {
      tx.send('insert into things values ($1, $2)', [1, A]);
      tx.send('insert into things values ($1, $2)', [2, B]);
    });
    expect(sqlState(await faultOf(last))).toBe('42501');
    const followed = database.app.transaction(A, async (tx) => {
      tx.send('insert into things values ($1, $2)', [3, B]);
      await tx.query('select 1');
    });
    // Not that of the statement behind it, which only says that the transaction is aborted.
    expect(sqlState(await faultOf(followed))).toBe('42501');
    const swallowed = database.app.transaction(A, async (tx) => {
      tx.send('insert into things values ($1, $2)', [4, B]);
      throw new Error('of my own');
    });
    await expect(swallowed).rejects.toThrow('of my own');
    expect(await database.asOwner('select * from things')).toEqual([]);
  });
});

describe('a transaction', () => {
  it('whose failed statement was swallowed does not pass for committed', async () => {
    const transaction = database.app.transaction(A, async (tx) => {
      await tx.execute('insert into things values (1, $1)', [A]);
      await tx.query('select 1 / 0').catch(() => undefined);
      return 'done';
    });
    await expect(transaction).rejects.toMatchObject({ code: 'TRANSACTION_ABORTED' });
    expect(await database.asOwner('select * from things')).toEqual([]);
  });

  it.each([`'; drop table things; --`, `${A}'; reset role; --`, 'null', `${A} `, A.replace('a', 'A')])(
    'of the tenant %j, which is none, sees nothing and runs nothing of it',
    async (tenant) => {
      await database.app.transaction(A, (tx) => tx.execute('insert into things values (1, $1)', [A]));
      const [rows, [setting]] = await database.app.transaction(tenant as TenantId, (tx) =>
        Promise.all([tx.query('select id from things'), tx.query(settingOf)]),
      );
      expect(rows).toEqual([]);
      expect(setting).toMatchObject({ tenant: '', user: APP_ROLE });
    },
  );

  it('of TypeORM takes part in it, and is rolled back with it', async () => {
    await faultOf(
      database.app.transaction(A, async (tx) => {
        const { manager } = (tx as unknown as { runner: QueryRunner }).runner;
        await manager.transaction((inner) => inner.query('insert into things values (1, $1)', [A]));
        throw new Error('rolled back');
      }),
    );
    expect(await database.asOwner('select * from things')).toEqual([]);
  });
});

describe('a connection that breaks', () => {
  let single: AppDatabase;
  beforeEach(async () => (single = await openAppDatabase({ url: database.url, service: 'test', poolSize: 1 })));
  afterEach(() => single.close());

  const pidOf = async () => Number((await single.transaction(A, (tx) => tx.query(settingOf)))[0]!['pid']);
  const terminate = async (pid: unknown) => {
    await database.asOwner('select pg_terminate_backend($1)', [pid]);
    await eventually('the backend is gone', async () => {
      return (await database.asOwner('select 1 from pg_stat_activity where pid = $1', [pid])).length === 0;
    });
  };

  it.each(['between two statements', 'during a statement', 'before the commit', 'after a statement was sent'])(
    '%s fails the transaction, and the pool serves the next one from another',
    async (when) => {
      const broken = await pidOf();
      const transaction = single.transaction(A, async (tx) => {
        await tx.execute('insert into things values (1, $1)', [A]);
        if (when === 'during a statement') {
          await Promise.all([tx.query('select pg_sleep(30)'), terminate(broken)]);
        }
        await terminate(broken);
        if (when === 'after a statement was sent') tx.send('insert into things values (2, $1)', [A]);
        if (when === 'between two statements') await tx.query('select 1');
      });
      const fault = await faultOf(transaction);
      expect(fault).toBeInstanceOf(Error);
      // Nobody knows whether the commit has happened, so this must not look like an answer that says it has not.
      expect(sqlState(fault) ?? '57P01').toBe('57P01');
      expect(await pidOf()).not.toBe(broken);
      expect(await database.asOwner('select * from things')).toEqual([]);
    },
  );

  it('while nobody uses it is replaced', async () => {
    const broken = await pidOf();
    await terminate(broken);
    await eventually('the pool has noticed', async () => (await pidOf().catch(() => broken)) !== broken);
  });
});

describe('a connection that goes silent', () => {
  const LIMIT_MS = 600;
  let cable: Cable;
  let stalled: AppDatabase;
  let background: SystemDatabase;
  beforeEach(async () => {
    cable = await aCable(database.url);
    const options = { url: cable.url, service: 'test', poolSize: 1, answerTimeoutMs: LIMIT_MS };
    [stalled, background] = await Promise.all([openAppDatabase(options), openSystemDatabase(options)]);
  });
  afterEach(async () => {
    cable.resume();
    await stalled.close();
    await background.close();
    await cable.close();
  });
  const insert = 'insert into things values ($1, $2)';

  it.each(['at the first statement', 'within the transaction', 'with statements sent behind it'])(
    '%s fails the transaction when the limit is over, and the next one has another',
    async (when) => {
      if (when === 'at the first statement') cable.stall();
      const began = performance.now();
      const fault = await faultOf(
        stalled.transaction(A, async (tx) => {
          await tx.execute(insert, [1, A]);
          cable.stall();
          if (when === 'with statements sent behind it') for (const id of [2, 3]) tx.send(insert, [id, A]);
          await tx.query('select 1');
        }),
      );
      const took = performance.now() - began;
      expect([fateOf(fault), sqlState(fault)]).toEqual(['undone', null]);
      expect(took).toBeGreaterThan(LIMIT_MS - 20);
      expect(took).toBeLessThan(LIMIT_MS * 10);
      await stalled.transaction(A, (tx) => tx.execute(insert, [4, A]));
      cable.resume();
      expect(await database.asOwner('select id from things')).toEqual([{ id: 4 }]);
    },
  );

  it.each<[at: CutAt, rows: number]>([
    ['before commit', 0],
    ['after commit', 1],
  ])('%s leaves open whether it was committed', async (at, rows) => {
    const silent = cable.stallNext(at);
    const fault = await faultOf(stalled.transaction(A, (tx) => tx.execute(insert, [1, A])));
    await silent;
    expect(fateOf(fault)).toBe('open');
    expect(await database.asOwner('select id from things')).toHaveLength(rows);
  });

  it('fails who is behind it in the queue of the pool at its own limit, and background parts as well', async () => {
    cable.stall();
    const faults = await Promise.all([
      faultOf(background.transaction((tx) => tx.query('select 1'))),
      faultOf(stalled.ping()),
    ]);
    expect(faults.every((fault) => fault instanceof Error)).toBe(true);
    expect(await background.transaction((tx) => tx.query('select 1 as one'))).toEqual([{ one: 1 }]);
    await stalled.ping();
  });
});

describe('the fate of a transaction', () => {
  it('is undone where no connection was to be had, and none of its own where Postgres refused it', async () => {
    const cable = await aCable(database.url);
    const app = await openAppDatabase({ url: cable.url, service: 'test', poolSize: 1 });
    try {
      const refused = await faultOf(app.transaction(A, (tx) => tx.query('select 1 / 0')));
      const own = new Error('of my own');
      expect(await faultOf(app.transaction(A, () => Promise.reject(own)))).toBe(own);
      cable.cut();
      const away = await faultOf(app.transaction(A, (tx) => tx.query('select 1')));
      expect([refused, own, away].map(fateOf)).toEqual([null, null, 'undone']);
    } finally {
      await app.close();
      await cable.close();
    }
  });

  it.each(['53100', '23514', '40003', '08007'])(
    'with a commit that is refused as %s is open only where that says so',
    async (state) => {
      await database.asOwner(
        `create or replace function refuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '${state}'; end $$`,
      );
      await database.asOwner(
        'create constraint trigger refuse_now after insert on things deferrable initially deferred for each row execute function refuse()',
      );
      try {
        const fault = await faultOf(
          database.app.transaction(A, (tx) => tx.execute('insert into things values (1, $1)', [A])),
        );
        expect([sqlState(fault), fateOf(fault)]).toEqual([state, /^(08|40003)/.test(state) ? 'open' : null]);
      } finally {
        await database.asOwner('drop trigger refuse_now on things');
      }
    },
  );
});

describe('sqlState', () => {
  it('knows an answer of Postgres by itself, within the error of TypeORM, and from other errors', async () => {
    await database.asOwner('create table if not exists one_thing (id int primary key)');
    await database.asOwner('grant insert on one_thing to atomo_app');
    const insert = 'insert into one_thing values (1), (1)';
    const bare = await faultOf(database.app.transaction(A, (tx) => tx.query(insert)));
    const wrapped = await faultOf(
      database.app.transaction(A, (tx) => (tx as unknown as { runner: QueryRunner }).runner.query(insert)),
    );
    expect([sqlState(bare), violatedConstraint(bare)]).toEqual(['23505', 'one_thing_pkey']);
    expect(wrapped).toHaveProperty('driverError');
    expect([sqlState(wrapped), violatedConstraint(wrapped)]).toEqual(['23505', 'one_thing_pkey']);
    for (const other of [
      null,
      undefined,
      'EPIPE',
      new Error('no'),
      Object.assign(new Error('no'), { code: 'EPIPE' }),
    ]) {
      expect([sqlState(other), violatedConstraint(other)]).toEqual([null, null]);
    }
  });
});

describe('array parameters', () => {
  it('arrive as they were', async () => {
    const texts = ['', 'a,b', '{"x"}', `\\ ' " \n`, 'é👩‍🚀', 'NULL', null];
    const numbers = [0, -1.5, 1e-300, Number.MAX_VALUE, 0.1, null];
    const objects = [{ a: [1, 'é', null] }, 'x', 1.5, null];
    const moments = [
      '2026-11-21T07:25:18.123Z',
      '2000-01-01T00:00:00.000Z',
      '1969-12-31T23:59:59.999Z',
      '9999-12-31T23:59:59.999Z',
    ];
    const [row] = await database.app.transaction(A, (tx) =>
      tx.query(
        `select to_json($1::text[]) as texts, to_json($2::int[]) as ints, to_json($3::double precision[]) as doubles,
                to_json($4::boolean[]) as booleans, to_json($5::jsonb[]) as objects, $6::bytea[] as bytes, to_json($7::text[]) as none,
                array(select case when isfinite(m) then to_char(m at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') else m::text end from unnest($8::timestamptz[]) m) as moments`,
        [
          textArray(texts),
          intArray([0, -(2 ** 31), 2 ** 31 - 1, null]),
          doubleArray(numbers),
          booleanArray([true, false, null]),
          jsonArray(objects.map((value) => (value === null ? null : JSON.stringify(value)))),
          byteaArray([Buffer.alloc(0), Buffer.from([0, 255])]),
          textArray([]),
          timestampArray([...moments.map((moment) => new Date(moment)), 'infinity', null]),
        ],
      ),
    );
    expect(row).toEqual({
      texts,
      ints: [0, -(2 ** 31), 2 ** 31 - 1, null],
      doubles: numbers,
      booleans: [true, false, null],
      objects,
      bytes: [Buffer.alloc(0), Buffer.from([0, 255])],
      none: [],
      moments: [...moments, 'infinity', null],
    });
  });
});

describe('migrate', () => {
  it('may run again, and from many processes at once', async () => {
    const fresh = await aDatabase([], { poolSize: 1 });
    try {
      await Promise.all(Array.from({ length: 5 }, () => migrate(fresh.url, MIGRATIONS)));
      await migrate(fresh.url, MIGRATIONS);
      const applied = await fresh.asOwner<{ name: string }>('select name from migrations order by id');
      expect(applied.map(({ name }) => name)).toEqual(['Roles1700000000000', ...MIGRATIONS.map(({ name }) => name)]);
    } finally {
      await fresh.drop();
    }
  });

  it('leaves no connection, and so no lock, behind', async () => {
    await migrate(database.url, MIGRATIONS);
    await eventually('the migration has disconnected', async () => {
      const left = await database.asOwner(
        `select 1 from pg_stat_activity where application_name = 'atomo migrate' and datname = current_database()`,
      );
      return left.length === 0;
    });
  });

  it('a login that may make roles, and is no superuser, can own the database', async () => {
    const [{ owner, password, name }] = [
      { owner: `owner_${process.pid}`, password: 'p', name: `owned_${process.pid}` },
    ] as const;
    await database.asOwner(`create role ${owner} login createrole password '${password}'`);
    // What a login has of the roles that it made: from Postgres 16 on it may grant them, but not act as them.
    const [{ version }] = (await database.asOwner(`select current_setting('server_version_num')::int as version`)) as [
      { version: number },
    ];
    const made = version < 160_000 ? 'admin option' : 'admin true, set false, inherit false';
    await database.asOwner(`grant ${APP_ROLE}, ${SYSTEM_ROLE} to ${owner} with ${made}`);
    await database.asOwner(`create database ${name} owner ${owner}`);
    try {
      const url = new URL(database.url);
      [url.username, url.password, url.pathname] = [owner, password, name];
      await migrate(url.href, MIGRATIONS);
      const app = await openAppDatabase({ url: url.href, service: 'test', poolSize: 1 });
      expect(await app.transaction(A, (tx) => tx.query('select current_user::text as user'))).toEqual([
        { user: APP_ROLE },
      ]);
      await app.close();
    } finally {
      await database.asOwner(`drop database ${name} with (force)`);
      await database.asOwner(`drop role ${owner}`);
    }
  });

  it.each([
    [{ password: 'wr0ng-secret' }, /refuses the login of "atomo"|refuses the login/],
    [{ pathname: '/no_such_database' }, /has no database "no_such_database"/],
    [{ port: '1' }, /does not answer at .*:1 \(ECONNREFUSED\)/],
  ])('tells what is wrong with %j in a sentence without the password', async (change, sentence) => {
    const url = Object.assign(new URL(database.url), change);
    const fault = await migrate(url.href, []).catch((error: unknown) => error);
    expect(fault).toMatchObject({ code: 'DATABASE_UNREACHABLE', message: expect.stringMatching(sentence) });
    expect((fault as Error).message).not.toContain(url.password);
  });
});

describe('describeConnectFault', () => {
  const url = 'postgres://ada:s3cret%21@db.example:6543/crm?password=s3cret!&sslmode=require';

  it.each([
    [{ code: '28P01', message: 'password authentication failed for user "ada"' }, /refuses the login of "ada"/],
    [{ code: '28000', message: 'no pg_hba.conf entry' }, /refuses the login/],
    [{ code: '3D000' }, /no database "crm": create it/],
    [{ code: 'ECONNREFUSED', message: '' }, /does not answer at db\.example:6543 \(ECONNREFUSED\)/],
    [{ code: 'ENOTFOUND', message: 'getaddrinfo ENOTFOUND db.example' }, /\(ENOTFOUND\)/],
    [{ message: `connection to ${url} timed out` }, /does not answer/],
    [new Error('timeout with s3cret! in it'), /does not answer/],
    ['a string', /does not answer/],
  ])('%j', (error, sentence) => {
    const said = describeConnectFault(url, error);
    expect(said).toMatch(sentence);
    expect(said).not.toMatch(/s3cret/);
    expect(said).not.toContain('\n');
  });

  it('does not fail on a URL that is none', () => {
    expect(describeConnectFault('postgres://ada:s3cret@:nope', new Error('x'))).not.toMatch(/s3cret/);
  });
});

describe('changeTables', () => {
  it('changes all or nothing', async () => {
    await expect(
      changeTables(database.url, async (tx) => {
        await tx.execute('create table half_done (id int)');
        throw new Error('stop');
      }),
    ).rejects.toThrow('stop');
    expect(await database.asOwner(`select to_regclass('half_done') as made`)).toEqual([{ made: null }]);
    await changeTables(database.url, async (tx) => void (await tx.execute('create table wholly_done (id int)')));
    expect(await database.asOwner(`select to_regclass('wholly_done')::text as made`)).toEqual([
      { made: 'wholly_done' },
    ]);
  });

  it('waits for others who change tables', async () => {
    let inside = 0;
    const change = () =>
      changeTables(database.url, async (tx) => {
        inside += 1;
        expect(inside).toBe(1);
        await tx.query('select pg_sleep(0.02)');
        inside -= 1;
      });
    await Promise.all([change(), change(), change()]);
  });
});

describe('a lease', () => {
  const take = (holder: string, ttlMs = 60_000) =>
    database.system.transaction((tx) => takeLease(tx, 'work', holder, ttlMs));
  const expire = () => database.asOwner(`update leases set expires_at = ${OLD_SECOND}`);

  it('goes to exactly one of many who ask at once', async () => {
    for (let round = 0; round < 10; round += 1) {
      const taken = await Promise.all([take('a'), take('b')]);
      expect(taken.filter(Boolean)).toHaveLength(1);
      await database.asOwner('truncate leases');
    }
  });

  it('is kept by its holder with the same epoch', async () => {
    const first = await take('a', 30_000);
    const second = await take('a', 90_000);
    expect(second).toEqual(first);
    const [row] = await database.asOwner<{ left: number }>(
      'select extract(epoch from expires_at - clock_timestamp())::int as left from leases',
    );
    expect(row!.left).toBeGreaterThan(60);
    expect(await take('b')).toBeNull();
  });

  it('goes to another when it has expired, with a greater epoch', async () => {
    const first = await take('a');
    await expire();
    const second = await take('b');
    expect(second!.epoch).toBeGreaterThan(first!.epoch);
    expect(await take('a')).toBeNull();
  });

  it('that expired is another one, also for the same holder', async () => {
    const first = await take('a');
    await expire();
    expect((await take('a'))!.epoch).toBeGreaterThan(first!.epoch);
  });

  it('that is given up is free at once; one that was lost cannot be given up', async () => {
    const first = await take('a');
    await expire();
    const second = await take('b');
    await database.system.transaction((tx) => releaseLease(tx, first!));
    expect(await take('c')).toBeNull();
    await database.system.transaction((tx) => releaseLease(tx, second!));
    expect((await take('c'))!.epoch).toBeGreaterThan(second!.epoch);
  });

  it('is out of reach for requests', async () => {
    await expect(database.app.transaction(A, (tx) => takeLease(tx, 'work', 'a', 1))).rejects.toThrow(
      /permission denied/,
    );
  });
});

test('an answer that nobody waits for any more, as another came to an error first, is no unhandled rejection', async () => {
  const unhandled = jest.fn();
  process.on('unhandledRejection', unhandled);
  const failing = database.app.transaction(A, async (tx) => {
    const first = tx.query('select 1 / 0');
    const others = [tx.prepared('select 1'), tx.query('select 1'), tx.execute('select 1')];
    await first;
    await Promise.all(others);
  });
  await expect(failing).rejects.toThrow(/division by zero/);
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', unhandled);
  expect(unhandled).not.toHaveBeenCalled();
});
