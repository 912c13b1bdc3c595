import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type TenantId } from '@atomo-cc/kernel';
import { append, eventStoreMigrations, ProjectionRunner, type Projection } from '@atomo-cc/event-store';
import { Leases1700000001000, tenantTable } from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { makeThrowAwayFolder } from './throw-away.js';

const A = '00000000-0000-7000-8000-00000000000a' as TenantId;
const B = '00000000-0000-7000-8000-00000000000b' as TenantId;
const COMMAND = path.resolve('tools/local/dist/projections.js');
const ONE_LINE = /^[^\n]+\n$/;

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(90_000);

let database: TestDatabase;
let folder: string;
let runner: ProjectionRunner | undefined;
/** Streams whose events cannot be applied. */
const poison = new Set<string>();

/** Counts the events of each stream. */
const counts: Projection = {
  name: 'counts',
  version: 1,
  mode: 'async',
  eventTypes: { 'Thing.changed': [1] },
  tables: [
    {
      name: 'counts',
      create: async (tx, physical) => {
        const [there] = await tx.query('select 1 where to_regclass($1) is not null', [physical]);
        if (there) return;
        await tx.query(
          `create table ${physical} (tenant_id uuid, stream text, n int, primary key (tenant_id, stream))`,
        );
        const grants = { app: 'select', system: 'select, insert, update, delete' };
        for (const statement of tenantTable(physical, grants)) await tx.query(statement);
      },
    },
  ],
  async apply(batch, tx, target) {
    for (const { tenant, stream } of batch) {
      if (poison.has(stream)) throw new Error(`${stream} is not\nto be counted`);
      await tx.execute(
        `insert into ${target.table('counts')} as c values ($1, $2, 1) on conflict (tenant_id, stream) do update set n = c.n + 1`,
        [tenant, stream],
      );
    }
  },
};

beforeAll(async () => {
  folder = makeThrowAwayFolder();
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

beforeEach(async () => {
  poison.clear();
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations], { poolSize: 6 });
  for (const tenant of [A, B]) await write(tenant, 'Thing-1', 'Thing-2');
  await start();
});
afterEach(async () => {
  await runner?.stop();
  await database?.drop();
});

async function start(): Promise<void> {
  runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [counts],
    pollMs: 30,
    leaseMs: 600,
  });
  await runner.start();
  await eventually('it has caught up', async () => (await runner!.status()).every(({ lagEvents }) => lagEvents === 0));
}

async function write(tenant: TenantId, ...streams: string[]): Promise<bigint[]> {
  const metadata = { actor: 'user:1', correlationId: 'c', causationId: 'd' };
  const appends = streams.map((stream) => ({
    stream,
    expected: 'any' as const,
    events: [{ type: 'Thing.changed', schemaVersion: 1, data: {} }],
    metadata,
  }));
  const result = await database.app.transaction(tenant, (tx) => append(tx, tenant, appends));
  return result.ok ? result.events.map(({ position }) => position) : [];
}

/** Runs the command as npm does; the environment has what it needs unless changed. */
async function projections(args: string, environment: Record<string, string> = {}) {
  const words = [...args.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!);
  const child = spawn(process.execPath, [COMMAND, ...words], {
    env: {
      PATH: process.env['PATH'],
      INIT_CWD: folder,
      ATOMO_HOME: path.join(folder, 'home'),
      DATABASE_URL: database.url,
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

/** The builds as --json lists them, the newest first. */
async function builds(): Promise<{ build: number; state: string; [name: string]: unknown }[]> {
  const { out } = await projections('--json');
  return JSON.parse(out)[0].builds;
}
const rows = () => database.asOwner<{ n: number }>('select n from counts order by tenant_id, stream');
const reaches = (build: number, state: string) =>
  eventually(`build ${build} is ${state}`, async () =>
    (await builds()).some((each) => each.build === build && each.state === state),
  );

it('lists how projections stand, a line for each build, or as JSON', async () => {
  expect(await projections('')).toEqual({
    code: 0,
    out: 'counts\n  build 1, version 1, live, 0 positions, 0 ms behind\n',
    err: '',
  });
  expect(await projections('list')).toMatchObject({ code: 0, out: expect.stringMatching(/^counts\n/) });
  expect(await builds()).toMatchObject([
    {
      build: 1,
      state: 'live',
      requestedBy: 'system',
      lagEvents: 0,
      shards: [{ position: expect.stringMatching(/^\d+$/) }],
    },
  ]);
});

it('rebuilds with --wait until the new build is live, and goes back', async () => {
  await database.asOwner('update counts set n = 100');
  const rebuilt = await projections('rebuild counts --reason "rows were changed by hand" --wait');
  expect(rebuilt).toMatchObject({ code: 0, err: '', out: expect.stringMatching(/^counts: build 2, version 1, live/m) });
  expect((await rows()).map(({ n }) => n)).toEqual([1, 1, 1, 1]);
  expect(await builds()).toMatchObject([
    { build: 2, state: 'live', reason: 'rows were changed by hand', requestedBy: `operator:${os.userInfo().username}` },
    { build: 1, state: 'retired' },
  ]);
  await write(A, 'Thing-1');
  const back = await projections('rollback counts --reason "the old ones were right" --wait');
  expect(back).toMatchObject({ code: 0, err: '', out: expect.stringMatching(/^counts: build 1, version 1, live/m) });
  expect((await rows()).map(({ n }) => n)).toEqual([101, 100, 100, 100]);
  expect(await projections('rollback counts --reason again')).toMatchObject({ code: 0 });
  await reaches(2, 'live');
});

it('rebuilds one tenant alone', async () => {
  await database.asOwner('update counts set n = 100');
  const said = await projections(`rebuild counts --reason x --tenant ${A.toUpperCase()} --wait`);
  expect(said).toMatchObject({ code: 0, out: expect.stringMatching(new RegExp(`merged, of tenant ${A}`)) });
  expect((await rows()).map(({ n }) => n)).toEqual([1, 1, 100, 100]);
});

it('holds a build until it is switched, or cancels it', async () => {
  const held = await projections('rebuild counts --reason x --hold --wait');
  expect(held).toMatchObject({
    code: 0,
    err: '',
    out: expect.stringMatching(/^Build 2 has caught up and is held[^\n]+\n$/m),
  });
  const refused = await projections('rebuild counts --reason x');
  expect(refused).toEqual({ code: 1, out: '', err: 'Build 2 of counts is ready.\n' });
  expect(await projections('cancel counts --reason "too early"')).toMatchObject({ code: 0, err: '' });
  expect((await builds())[0]).toMatchObject({
    build: 2,
    state: 'cancelled',
    error: expect.stringMatching(/too early/),
  });
  expect(await projections('cancel counts --reason x')).toMatchObject({
    code: 1,
    err: 'No build of counts is under way.\n',
  });

  expect(await projections('rebuild counts --reason x --hold --wait')).toMatchObject({ code: 0 });
  expect(await projections('switch counts')).toMatchObject({ code: 0, out: expect.stringMatching(ONE_LINE) });
  await reaches(3, 'live');
  expect(await projections('switch counts')).toMatchObject({ code: 1, err: 'No build of counts is under way.\n' });
  expect(await projections('rollback counts --reason x --hold --wait')).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^Build 1 has caught up and is held/m),
  });
});

it('pauses and resumes, all builds or one', async () => {
  expect(await projections('pause counts')).toMatchObject({ code: 0, err: '' });
  await write(A, 'Thing-1');
  expect((await projections('')).out).toMatch(/live, 1 positions, \d+ ms behind, paused\n/);
  expect(await projections('resume counts --build 1')).toMatchObject({ code: 0, err: '' });
  await eventually('it goes on', async () => (await rows())[0]!.n === 2);
  expect(await projections('pause counts --build 7')).toMatchObject({ code: 1, err: expect.stringMatching(ONE_LINE) });
});

it('lists the events that could not be applied, a line for each, and retries or skips them', async () => {
  poison.add('Thing-3');
  const [first] = await write(A, 'Thing-3');
  const [second] = await write(B, 'Thing-3');
  const letters = async () => JSON.parse((await projections('letters counts --json')).out);
  await eventually('the letters are there', async () => (await letters()).length === 2);
  expect((await projections('letters counts')).out).toBe(
    `${first}  Thing.changed  Thing-3  tenant ${A}  4 attempts: "Thing-3 is not\\nto be counted"\n` +
      `${second}  Thing.changed  Thing-3  tenant ${B}  4 attempts: "Thing-3 is not\\nto be counted"\n2 open dead letters.\n`,
  );
  expect((await projections('')).out).toMatch(/2 open dead letters\n$/);

  const stuck = await projections('rebuild counts --reason x --wait');
  expect(stuck).toMatchObject({
    code: 1,
    err: expect.stringMatching(/^counts: build 2, [^\n]*2 open dead letters[^\n]*\n$/),
  });
  expect(await projections('switch counts')).toMatchObject({
    code: 1,
    err: 'Build 2 of counts has 2 open dead letters.\n',
  });
  expect((await projections('letters counts --build 2 --json')).out).toMatch(/"build": 2/);
  expect(await projections('switch counts --allow-dead-letters')).toMatchObject({ code: 0 });
  await reaches(2, 'live');

  poison.clear();
  expect(await projections(`retry counts ${first}`)).toMatchObject({ code: 0, out: expect.stringMatching(ONE_LINE) });
  await eventually('it is retried', async () => (await letters()).length === 1);
  expect(await projections(`retry counts ${first}`)).toMatchObject({
    code: 1,
    err: `Build 2 of counts has no open dead letter at position ${first}.\n`,
  });
  const skip = `skip counts ${second} --reason "sent twice"`;
  expect(await projections(skip)).toMatchObject({ code: 0, err: '' });
  expect(await projections(skip)).toMatchObject({ code: 1, err: expect.stringMatching(/no open dead letter/) });
  expect((await projections('letters counts')).out).toBe('0 open dead letters.\n');
  expect(await projections(`skip counts ${second} --build 1 --reason x`)).toMatchObject({ code: 0 });
});

it('--wait ends when nobody takes the build up, and when it has stopped', async () => {
  await runner!.stop();
  const alone = await projections('rebuild counts --reason x --wait');
  expect(alone).toMatchObject({ code: 1, err: expect.stringMatching(/^No running content-core[^\n]+\n$/) });
  await database.asOwner(`update event_log set schema_version = 2 where tenant_id = $1`, [B]);
  await start();
  await projections('cancel counts --reason x');
  const stopped = await projections('rebuild counts --reason x --wait');
  expect(stopped).toMatchObject({
    code: 1,
    err: expect.stringMatching(/^counts: build 3, [^\n]*stopped[^\n]*does not know/),
  });
});

it('asks the database of the Atomo that runs when DATABASE_URL is not set', async () => {
  const home = path.join(folder, 'running');
  fs.mkdirSync(home);
  const environment = { DATABASE_URL: '', ATOMO_HOME: home };
  expect(await projections('', environment)).toMatchObject({ code: 1, err: expect.stringMatching(/is not running/) });
  fs.writeFileSync(path.join(home, 'run.json'), JSON.stringify({ databaseUrl: database.url }));
  expect(await projections('', environment)).toMatchObject({ code: 0 });
});

it('wrong uses are answered with one sentence', async () => {
  for (const [args, sentence] of [
    ['counts', /^Say what to do: /],
    ['rebuild', /^Say what to do: /],
    ['rebuild counts now --reason x', /^Say what to do: /],
    ['retry counts', /^Say what to do: /],
    ['constructor', /^Say what to do: /],
    ['rebuild counts', /^Say why, /],
    ['rebuild counts --reason "  "', /^Say why, /],
    [`cancel counts --reason ${'x'.repeat(1_001)}`, /^Say why, /],
    ['rebuild counts --reason x --build 1', /^--build is nothing for rebuild; /],
    ['list --wait', /^--wait is nothing for list; /],
    ['switch counts --reason x', /^--reason is nothing for switch; /],
    ['rebuild counts --reason x --tenant acme', /^--tenant acme is no id /],
    ['letters counts --build one', /^--build one is no number /],
    ['retry counts first', /^first is no position /],
    ['list --loud', /^Unknown option '--loud'; see npm run projections -- --help\.$/m],
    ['rebuild unheard-of --reason x', /^No projection unheard-of has ever run here\.$/m],
    ['letters unheard-of', /^No projection unheard-of has ever run here\.$/m],
    ['pause unheard-of', /unheard-of has ever run here\.$/m],
    ['rollback counts --reason x', /^No build of counts is kept\.$/m],
    ['retry counts 999', /^Build 1 of counts has no open dead letter at position 999\.$/m],
  ] as const) {
    const said = await projections(args);
    expect({ args, ...said }).toMatchObject({ code: 1, out: '', err: expect.stringMatching(sentence) });
    expect(said.err).toMatch(ONE_LINE);
  }
});

it('says that nothing has run yet, and that a database is not one of Atomo', async () => {
  const [fresh, empty] = [await aDatabase(eventStoreMigrations, { poolSize: 1 }), await aDatabase([], { poolSize: 1 })];
  try {
    const said = await projections('', { DATABASE_URL: fresh.url });
    expect(said).toEqual({ code: 0, out: 'No projection has run here yet: start Atomo.\n', err: '' });
    const refused = await projections('', { DATABASE_URL: empty.url });
    expect(refused).toMatchObject({ code: 1, err: expect.stringMatching(/^This database is not one of this version/) });
  } finally {
    await Promise.all([fresh.drop(), empty.drop()]);
  }
});

it('--help shows every action and option', async () => {
  const { out } = await projections('--help');
  for (const word of 'rebuild switch cancel rollback pause resume letters retry skip --tenant --hold --allow-dead-letters --build --wait --json'.split(
    ' ',
  )) {
    expect(out).toContain(word);
  }
});
