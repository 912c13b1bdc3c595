import type { QueryRunner } from 'typeorm';
import { type TenantId } from '@atomo-cc/kernel';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { APP_ROLE, openAppDatabase, SYSTEM_ROLE } from './database.js';
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

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(30_000);

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
    const first = await take('a', 1_000);
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
