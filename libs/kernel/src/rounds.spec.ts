import { Rounds } from './rounds.js';

/** Longer than any test: only a wake or a stop ends it. */
const FOR_EVER_MS = 600_000;

/** Rounds that wait until the test lets them end. */
function someRounds(pauseMs = FOR_EVER_MS) {
  const ends: PromiseWithResolvers<void>[] = [];
  const begun: (() => void)[] = [];
  const errors: unknown[] = [];
  const rounds = new Rounds(
    () => {
      const end = Promise.withResolvers<void>();
      ends.push(end);
      for (const tell of begun.splice(0)) tell();
      return end.promise;
    },
    pauseMs,
    (error) => errors.push(error),
  );
  const nth = async (count: number) => {
    while (ends.length < count) await new Promise<void>((resolve) => begun.push(resolve));
    return ends[count - 1]!;
  };
  return { rounds, ends, errors, nth };
}

it('goes on by itself after the pause, and after a round that failed', async () => {
  const { rounds, errors, nth } = someRounds(1);
  rounds.start();
  (await nth(1)).reject(new Error('away'));
  (await nth(2)).resolve();
  (await nth(3)).resolve();
  await rounds.stop();
  expect(errors).toEqual([new Error('away')]);
});

it('does not pause when it was woken, be it while a round was under way', async () => {
  const { rounds, ends, nth } = someRounds();
  rounds.start();
  const first = await nth(1);
  rounds.wake();
  first.resolve();
  (await nth(2)).resolve();
  await new Promise((resolve) => setImmediate(resolve));
  rounds.wake();
  (await nth(3)).resolve();
  await rounds.stop();
  expect(ends).toHaveLength(3);
});

it('stops after the round that is under way, and begins no other', async () => {
  const { rounds, ends, nth } = someRounds();
  rounds.start();
  const first = await nth(1);
  let hasStopped = false;
  const stopped = rounds.stop().then(() => (hasStopped = true));
  await new Promise((resolve) => setImmediate(resolve));
  expect([hasStopped, rounds.isStopping]).toEqual([false, true]);
  first.resolve();
  await stopped;
  expect(ends).toHaveLength(1);
});
