import { EventEmitter } from 'node:events';
import type { Redis } from '@atomo-cc/platform/redis';
import { progressChannel } from '@atomo-cc/queues';
import type { SyncJob } from '@atomo-cc/sync-jobs';
import { ProgressFeed } from './progress-feed.js';

const ID = '018f0000-0000-7000-8000-000000000001';
const LOOK_MS = 2_000;

/** A Redis that keeps the channels it is subscribed to; `isAway` leaves commands without an answer, as a blocking connection does. */
class FakeRedis extends EventEmitter {
  readonly channels = new Set<string>();
  isAway = false;
  readonly subscribe = (channel: string) => this.answer(() => this.channels.add(channel));
  readonly unsubscribe = (channel: string) => this.answer(() => this.channels.delete(channel));
  hint(id = ID): void {
    if (this.channels.has(progressChannel(id))) this.emit('message', progressChannel(id), '');
  }
  private answer(done: () => void): Promise<unknown> {
    if (this.isAway) return new Promise(() => undefined);
    done();
    return Promise.resolve();
  }
}

const job = (recordsProcessed: number, status: SyncJob['status'] = 'running') =>
  ({ id: ID, status, bytesProcessed: 0, recordsProcessed, errorCount: 0 }) as SyncJob;

let redis: FakeRedis;
let feed: ProgressFeed;
let row: SyncJob | null;
let reads: number;
const read = async () => {
  reads += 1;
  return row;
};
/** Lets what is under way get as far as it can without time passing. */
const settle = () => jest.advanceTimersByTimeAsync(0);

beforeEach(() => {
  jest.useFakeTimers();
  redis = new FakeRedis();
  feed = new ProgressFeed(redis as unknown as Redis);
  row = job(0);
  reads = 0;
});

afterEach(() => {
  expect(jest.getTimerCount()).toBe(0);
  expect(redis.channels.size).toBe(0);
  expect(redis.listenerCount('message')).toBe(1);
  jest.useRealTimers();
});

/** Takes the next job; `done` tells whether it has come. */
function taking(jobs: AsyncGenerator<SyncJob>) {
  const taken: { done: boolean; value: Promise<IteratorResult<SyncJob>> } = { done: false, value: jobs.next() };
  void taken.value.then(
    () => (taken.done = true),
    () => (taken.done = true),
  );
  return taken;
}

test('the job now, then each change at its hint, until it has ended', async () => {
  const jobs = feed.follow(ID, read);
  expect(await jobs.next()).toEqual({ done: false, value: job(0) });
  const next = taking(jobs);
  await settle();
  expect(next.done).toBe(false);
  row = job(100);
  redis.hint();
  expect(await next.value).toEqual({ done: false, value: job(100) });
  row = job(100, 'completed');
  redis.hint();
  expect(await jobs.next()).toEqual({ done: false, value: job(100, 'completed') });
  expect(await jobs.next()).toEqual({ done: true, value: undefined });
});

test.each(['completed', 'failed', 'cancelled'] as const)('a job that is %s is shown once', async (status) => {
  row = job(1, status);
  const seen: SyncJob[] = [];
  for await (const shown of feed.follow(ID, read)) seen.push(shown);
  expect(seen).toEqual([row]);
});

test('a paused job is followed on', async () => {
  row = job(1, 'paused');
  const jobs = feed.follow(ID, read);
  await jobs.next();
  const next = taking(jobs);
  await settle();
  row = job(2);
  redis.hint();
  expect((await next.value).value).toEqual(job(2));
  await jobs.return(undefined);
});

test('without hints the slow look finds the change', async () => {
  const jobs = feed.follow(ID, read);
  await jobs.next();
  const next = taking(jobs);
  await settle();
  row = job(5);
  await jest.advanceTimersByTimeAsync(LOOK_MS - 1);
  expect(next.done).toBe(false);
  await jest.advanceTimersByTimeAsync(1);
  expect((await next.value).value).toEqual(job(5));
  await jobs.return(undefined);
});

test('while Redis is away the slow look serves, and leaving does not wait for Redis', async () => {
  redis.isAway = true;
  const jobs = feed.follow(ID, read);
  expect((await jobs.next()).value).toEqual(job(0));
  const next = taking(jobs);
  row = job(5);
  await jest.advanceTimersByTimeAsync(LOOK_MS);
  expect((await next.value).value).toEqual(job(5));
  await jobs.return(undefined);
});

test('a hint without a change, and a hint of another job, show nothing', async () => {
  const jobs = feed.follow(ID, read);
  await jobs.next();
  const next = taking(jobs);
  await settle();
  const before = reads;
  redis.emit('message', progressChannel('other'), '');
  await settle();
  expect(reads).toBe(before);
  redis.hint();
  await settle();
  expect(reads).toBe(before + 1);
  expect(next.done).toBe(false);
  await jobs.return(undefined);
});

test('a thousand hints while nobody reads are one look', async () => {
  const jobs = feed.follow(ID, read);
  await jobs.next();
  const before = reads;
  for (let n = 0; n < 1_000; n += 1) redis.hint();
  await jest.advanceTimersByTimeAsync(100 * LOOK_MS);
  row = job(1);
  await jobs.next();
  expect(reads - before).toBeLessThanOrEqual(2);
  await jobs.return(undefined);
});

test('a change made while the last one is taken is not missed', async () => {
  const jobs = feed.follow(ID, async () => {
    const seen = await read();
    // The row changes and the hint arrives before what was read reaches the reader.
    if (seen?.recordsProcessed === 0) {
      row = job(1, 'completed');
      redis.hint();
    }
    return seen;
  });
  const seen: number[] = [];
  for await (const shown of jobs) seen.push(shown.recordsProcessed);
  expect(seen).toEqual([0, 1]);
});

test('a job that is gone ends the following', async () => {
  row = null;
  expect(await feed.follow(ID, read).next()).toEqual({ done: true, value: undefined });
});

test('a fault of the reading ends the following, and leaves nothing behind', async () => {
  const jobs = feed.follow(ID, () => Promise.reject(new Error('no database')));
  await expect(jobs.next()).rejects.toThrow('no database');
  expect(await jobs.next()).toEqual({ done: true, value: undefined });
});

test('a reader that leaves while it waits is let go at once', async () => {
  const jobs = feed.follow(ID, read);
  await jobs.next();
  const next = taking(jobs);
  await settle();
  await jobs.return(undefined);
  expect(await next.value).toEqual({ done: true, value: undefined });
});

test('a reader that breaks out of its loop leaves nothing behind', async () => {
  for await (const shown of feed.follow(ID, read)) {
    expect(shown).toEqual(job(0));
    break;
  }
});

test('leaving before the first look, and leaving twice, are fine', async () => {
  const jobs = feed.follow(ID, read);
  await jobs.return(undefined);
  await jobs.return(undefined);
  expect(await jobs.next()).toEqual({ done: true, value: undefined });
  expect(reads).toBe(0);
});

test('one follower that leaves takes nothing from the others', async () => {
  const one = feed.follow(ID, read);
  const two = feed.follow(ID, read);
  await Promise.all([one.next(), two.next()]);
  const next = taking(two);
  await one.return(undefined);
  row = job(1);
  redis.hint();
  expect((await next.value).value).toEqual(job(1));
  await two.return(undefined);
});
