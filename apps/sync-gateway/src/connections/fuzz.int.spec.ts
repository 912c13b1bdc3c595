import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type DigestAnswer, digestOf, digestTerm } from '@atomo-cc/sync-protocol';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, fuzz, type Fuzzed, fuzzRoutes, putOf, TestGateway } from '../testing/index.js';

/** A share for every run; a long one by hand: FUZZ_EVENTS=100000. */
const EVENTS = Number(process.env['FUZZ_EVENTS'] ?? 3_000);
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000);
/** What the process may hold more after all of it than after its first tenth: caches that fill, nothing that grows with events. */
const MEMORY_LEFT_MIB = 24;

let database: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  gateway = await TestGateway.start(database.url, { environment: { SYNC_OPS_PER_SECOND: '1000000' } });
});

afterAll(async () => {
  await gateway.stop();
  await database.drop();
});

/** MiB that are in use, garbage aside. */
function memory(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 2 ** 20;
}

it(`the gateway lives through ${EVENTS} malformed events, answers as before and forgets them (seed ${SEED})`, async () => {
  const store = await gateway.aStore();
  const { key } = await store.aKey();
  const others = [await store.aKey('read'), await store.aKey('write'), await store.aKeyOf({ prefixes: ['f'] })];
  const keys = [key, key, ...others.map((each) => each.key)];
  const runs: Fuzzed[] = [await fuzz(gateway, keys, Math.round(EVENTS / 10), SEED)];
  const before = memory();
  const statuses = await fuzzRoutes(gateway, keys, Math.round(EVENTS / 20), SEED + 2);
  runs.push(await fuzz(gateway, keys, EVENTS - runs[0]!.sent, SEED + 1));
  let grown = Number.POSITIVE_INFINITY;
  // Sockets that were cut are taken apart a little later.
  await eventually('the memory is back', () => (grown = memory() - before) < MEMORY_LEFT_MIB);
  const count = (code: string) => runs.reduce((sum, { codes }) => sum + (codes.get(code) ?? 0), 0);
  if (EVENTS > 10_000) {
    const told = JSON.stringify(Object.fromEntries(runs[1]!.codes));
    process.stdout.write(`${EVENTS} events, seed ${SEED}, ${grown.toFixed(1)} MiB more: ${told}\n`);
  }
  expect(runs.reduce((sum, { sent }) => sum + sent, 0)).toBe(EVENTS);
  // Nothing of it is a fault of ours, and none that is handled goes without an answer.
  expect([count('INTERNAL_ERROR'), count('no answer')]).toEqual([0, 0]);
  expect([...statuses.keys()].filter((status) => status >= 500)).toEqual([]);
  expect(statuses.get(400)).toBeGreaterThan(EVENTS / 100);
  expect(count('VALIDATION_ERROR')).toBeGreaterThan(EVENTS / 20);

  const [device, old] = [await Device2.connect(gateway, key), await gateway.connect(key)];
  expect(await device.op(putOf('alive.md', 'x'))).toMatchObject({ success: true });
  expect((await old.take(1))[0]).toMatchObject(['file-created', { path: 'alive.md', content: 'x' }]);
  expect((await gateway.file(key, 'alive.md')).body.content).toBe('x');
  // What the store says of itself is still true.
  const { files } = await gateway.snapshot(key);
  const digest = digestOf(files.map(({ path, hash }) => digestTerm(path, hash)));
  expect(await device.ask<DigestAnswer>('digest')).toMatchObject({ digest, count: files.length });
  expect((await Device2.connect(gateway, key)).ready).toMatchObject({ digest, count: files.length });
  expect(await gateway.call('GET', '/health/ready')).toMatchObject({ status: 200 });
}, 1_800_000);
