import { type TenantId } from '@atomo-cc/kernel';
import { openAppDatabase, type AppDatabase } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { append } from './append.js';
import { Fence } from './fence.js';
import { readEvents } from './read.js';
import { eventStoreMigrations } from './schema.js';

const TENANT = '00000000-0000-7000-8000-00000000000a' as TenantId;
const METADATA = { actor: 'system:torture', correlationId: 'c', causationId: 'd' };
const WRITERS = 6;
const ROUNDS = 60;
const STREAMS = 4;

/** Numbers that the same seed gives again (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(30_000);

let database: TestDatabase;
let victims: AppDatabase;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations, { poolSize: WRITERS + 2 });
  victims = await openAppDatabase({ url: database.url, service: 'victim', poolSize: 1 });
});

afterAll(async () => {
  await victims?.close();
  await database?.drop();
});

/** Appends to one or two streams, with pauses before the position is drawn and before the end; some roll back. */
async function write(random: () => number): Promise<void> {
  for (let round = 0; round < ROUNDS; round += 1) {
    const streams = new Set([random(), random()].map((drawn) => `Thing-${Math.floor(drawn * STREAMS)}`));
    const [before, after, fate] = [random() * 0.006, random() * 0.012, random()];
    const count = 1 + Math.floor(random() * 3);
    await database.app
      .transaction(TENANT, async (tx) => {
        await tx.query('select pg_sleep($1)', [before]);
        const events = Array.from({ length: count }, (_, n) => ({
          type: 'Thing.changed',
          schemaVersion: 1,
          data: { n },
        }));
        await append(
          tx,
          TENANT,
          [...streams].map((stream) => ({ stream, expected: 'any' as const, events, metadata: METADATA })),
        );
        await tx.query('select pg_sleep($1)', [after]);
        if (fate < 0.2) throw new Error('rolled back');
      })
      .catch((error: unknown) => {
        if ((error as Error).message !== 'rolled back') throw error;
      });
  }
}

/** Appends, and is killed before it can commit. */
async function beKilled(): Promise<void> {
  const dying = victims.transaction(TENANT, async (tx) => {
    const [self] = await tx.query<{ pid: number }>('select pg_backend_pid() as pid');
    await append(tx, TENANT, [
      {
        stream: 'Thing-victim',
        expected: 'any',
        events: [{ type: 'Thing.lost', schemaVersion: 1, data: {} }],
        metadata: METADATA,
      },
    ]);
    await database.asOwner('select pg_terminate_backend($1)', [self!.pid]);
    await tx.query('select pg_sleep(60)');
  });
  await expect(dying).rejects.toThrow(/terminat|not queryable/i);
}

interface Tail {
  readonly seen: bigint[];
  readonly marks: bigint[];
  readonly versions: [stream: string, version: number][];
}

/** Follows the log by the mark alone until `isOver`, then to its end. `lookers` share the reader's fence, as requests do. */
async function follow(isOver: () => boolean, lookers: number): Promise<Tail> {
  const fence = new Fence();
  const tail: Tail = { seen: [], marks: [], versions: [] };
  for (let after = 0n, isLast = false; ;) {
    isLast = isOver();
    const advances = Array.from({ length: lookers }, () => database.app.transaction(TENANT, (tx) => fence.advance(tx)));
    const settled = (await Promise.all(advances)).at(-1)!;
    tail.marks.push(settled);
    const events = await database.app.transaction(TENANT, (tx) =>
      readEvents(tx, TENANT, { after, settled, limit: 1_000 }),
    );
    for (const { position, stream, streamVersion } of events) {
      tail.seen.push(position);
      tail.versions.push([stream, streamVersion]);
    }
    after = settled > after && events.length < 1_000 ? settled : (events.at(-1)?.position ?? after);
    if (isLast && events.length < 1_000) return tail;
  }
}

it('readers that go by the mark lose nothing and see nothing twice, whatever writers do', async () => {
  const seed = Date.now() % 2 ** 31;
  process.stdout.write(`fence torture, seed ${seed}\n`);
  let isOver = false;
  const readers = [follow(() => isOver, 1), follow(() => isOver, 3)];
  const writers = Array.from({ length: WRITERS }, (_, writer) => write(seeded(seed + writer)));
  await Promise.all([...writers, beKilled()]).finally(() => (isOver = true));

  const committed = await database.asOwner<{ position: string; type: string }>(
    'select position, type from event_log order by position',
  );
  const [drawn] = await database.asOwner<{ last_value: string }>('select last_value from event_log_position');
  expect(committed.length).toBeGreaterThan(200);
  expect(Number(drawn!.last_value)).toBeGreaterThan(committed.length);
  expect(committed.filter(({ type }) => type === 'Thing.lost')).toEqual([]);

  for (const tail of await Promise.all(readers)) {
    expect(tail.seen).toEqual(committed.map(({ position }) => BigInt(position)));
    const heads = new Map<string, number>();
    for (const [stream, version] of tail.versions) {
      expect(version).toBe((heads.get(stream) ?? 0) + 1);
      heads.set(stream, version);
    }
    expect(tail.marks.every((mark, at) => at === 0 || mark >= tail.marks[at - 1]!)).toBe(true);
    // It followed while others wrote; a reader that saw all at the end would prove nothing.
    expect(new Set(tail.marks).size).toBeGreaterThan(10);
  }
}, 30_000);
