import { backoffMs, sleep } from './retry.js';

describe('backoffMs', () => {
  const backoff = { firstMs: 100, maxMs: 5_000 };

  it.each([
    [1, 100],
    [2, 200],
    [3, 400],
    [6, 3_200],
    [7, 5_000],
    [1_000, 5_000],
  ])('attempt %i waits from half of %i ms up to all of it', (attempt, ceiling) => {
    expect(backoffMs(attempt, backoff, () => 0)).toBe(ceiling / 2);
    expect(backoffMs(attempt, backoff, () => 1)).toBe(ceiling);
  });

  it('stays within its bounds whatever is drawn, and does not always draw the same', () => {
    const waits = Array.from({ length: 200 }, () => backoffMs(3, backoff));
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(200);
    expect(Math.max(...waits)).toBeLessThanOrEqual(400);
    expect(new Set(waits).size).toBeGreaterThan(10);
  });
});

describe('sleep', () => {
  afterEach(() => jest.useRealTimers());

  it('ends when its time is over, not before', async () => {
    jest.useFakeTimers();
    let isOver = false;
    const slept = sleep(1_000).then(() => (isOver = true));
    await jest.advanceTimersByTimeAsync(999);
    expect(isOver).toBe(false);
    await jest.advanceTimersByTimeAsync(1);
    await slept;
    expect(isOver).toBe(true);
  });

  it('ends without an error when it is aborted, and leaves neither timer nor listener', async () => {
    jest.useFakeTimers();
    const stop = new AbortController();
    const removed = jest.spyOn(stop.signal, 'removeEventListener');
    const slept = sleep(3_600_000, stop.signal);
    stop.abort();
    await slept;
    expect(jest.getTimerCount()).toBe(0);
    expect(removed).toHaveBeenCalledWith('abort', expect.any(Function));
  });

  it('does not begin when it was aborted before', async () => {
    jest.useFakeTimers();
    await sleep(3_600_000, AbortSignal.abort());
    expect(jest.getTimerCount()).toBe(0);
  });

  it('takes its listener off when its time is over', async () => {
    jest.useFakeTimers();
    const stop = new AbortController();
    const removed = jest.spyOn(stop.signal, 'removeEventListener');
    const slept = sleep(10, stop.signal);
    await jest.advanceTimersByTimeAsync(10);
    await slept;
    expect(removed).toHaveBeenCalledTimes(1);
  });
});
