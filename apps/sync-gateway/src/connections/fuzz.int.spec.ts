import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, fuzz, putOf, TestGateway } from '../testing/index.js';

/** A share for every run; a long one by hand: FUZZ_EVENTS=100000. */
const EVENTS = Number(process.env['FUZZ_EVENTS'] ?? 2_000);
const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1_000_000);

let database: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  gateway = await TestGateway.start(database.url, { environment: { SYNC_OPS_PER_SECOND: '1000000' } });
}, 30_000);

afterAll(async () => {
  await gateway.stop();
  await database.drop();
}, 30_000);

it(`the gateway lives through ${EVENTS} malformed events and answers as before (seed ${SEED})`, async () => {
  const { key } = await (await gateway.aStore()).aKey();
  const { sent, codes } = await fuzz(gateway, key, EVENTS, SEED);
  if (EVENTS > 10_000)
    process.stdout.write(`${sent} events, seed ${SEED}: ${JSON.stringify(Object.fromEntries(codes))}\n`);
  expect(sent).toBe(EVENTS);
  // Nothing of it is a fault of ours, and none that is handled goes without an answer.
  expect([codes.get('INTERNAL_ERROR'), codes.get('no answer')]).toEqual([undefined, undefined]);
  expect(codes.get('VALIDATION_ERROR')).toBeGreaterThan(EVENTS / 20);
  const device = await Device2.connect(gateway, key);
  expect(await device.op(putOf('alive.md', 'x'))).toMatchObject({ success: true });
  expect(await gateway.call('GET', '/health/ready')).toMatchObject({ status: 200 });
}, 1_800_000);
