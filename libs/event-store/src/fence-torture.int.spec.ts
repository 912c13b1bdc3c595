import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import { openAppDatabase, type AppDatabase } from '@atomo-cc/platform/postgres';
import { aDatabase, aSeed, seeded, type TestDatabase } from '@atomo-cc/testing';
import { eventStoreMigrations } from './schema.js';
import { tortureFence } from './testing/fence-torture.js';

const WRITERS = 6;
const ROUNDS = 60;

let database: TestDatabase;
let doomed: AppDatabase;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations, { poolSize: WRITERS + 4 });
  doomed = await openAppDatabase({ url: database.url, service: 'doomed', poolSize: 2 });
});

afterAll(async () => {
  await doomed?.close();
  await database?.drop();
});

// `tools/bench/torture.mjs` runs the same for as long as one likes.
it('who goes by the mark loses nothing and sees nothing twice, whatever writers do', async () => {
  const seed = aSeed('fence torture');
  const { committed, holes, marks, killed, rolledBack, subscribed, ...faults } = await tortureFence({
    database: database.app,
    doomed,
    asOwner: (sql, parameters) => database.asOwner(sql, parameters),
    tenants: [uuidv7() as TenantId, uuidv7() as TenantId],
    writers: WRITERS,
    victims: 2,
    readers: 2,
    subscriptions: 2,
    streams: 4,
    lots: (n) => seeded(seed + n),
    isOver: (rounds) => rounds >= ROUNDS,
  });
  expect(faults).toEqual({ lost: 0, duplicated: 0, inverted: 0, ghosts: 0, marksBack: 0 });
  expect(committed).toBeGreaterThan(200);
  for (const count of [holes, marks, rolledBack]) expect(count).toBeGreaterThan(10);
  expect(killed).toBe(12);
  expect(subscribed).toBeGreaterThan(2);
});
