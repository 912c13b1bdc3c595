import { Bounds, TokenBucket } from './bounds.js';

describe('a bucket', () => {
  it('gives what is in it, tells how long the rest takes, and fills up to its rim', () => {
    let now = 0;
    const bucket = new TokenBucket(10, 50, () => now);
    expect(bucket.take(50)).toBe(0);
    expect(bucket.take(5)).toBe(500);
    now = 500;
    expect(bucket.take(5)).toBe(0);
    expect(bucket.take(1)).toBe(100);
    now = 1_000_000;
    expect([bucket.take(50), bucket.take(1)]).toEqual([0, 100]);
  });

  it('lets through what is larger than itself when it is full, and is paid off after it', () => {
    let now = 0;
    const bucket = new TokenBucket(10, 50, () => now);
    expect(bucket.take(100)).toBe(0);
    now = 5_000;
    expect(bucket.take(1)).toBe(100);
    now = 5_100;
    expect(bucket.take(1)).toBe(0);
  });
});

describe('the bounds', () => {
  const bounds = new Bounds({ opsPerSecond: 10, quotaBytes: 1, retentionDays: 1 });

  it('are each key’s own', () => {
    bounds.take('a', 50);
    expect(() => bounds.take('a', 1)).toThrow(expect.objectContaining({ code: 'RATE_LIMITED' }));
    expect(() => bounds.take('b', 1)).not.toThrow();
  });

  it('stop an address that guesses, and no other', () => {
    for (let guess = 0; guess < 60; guess += 1) {
      expect(bounds.mayTry('1.2.3.4')).toBe(true);
      bounds.failed('1.2.3.4');
    }
    expect([bounds.mayTry('1.2.3.4'), bounds.mayTry('1.2.3.5')]).toEqual([false, true]);
  });

  it('count the sockets of a key', () => {
    expect(Array.from({ length: 500 }, () => bounds.enter('k')).every(Boolean)).toBe(true);
    expect(bounds.enter('k')).toBe(false);
    bounds.leave('k');
    expect([bounds.enter('k'), bounds.enter('k')]).toEqual([true, false]);
  });

  it('count the snapshots that a key reads at once', () => {
    const leaves = Array.from({ length: 8 }, () => bounds.enterSnapshot('k'));
    expect(() => bounds.enterSnapshot('k')).toThrow(expect.objectContaining({ code: 'RATE_LIMITED' }));
    leaves[0]!();
    bounds.enterSnapshot('k');
    expect(() => bounds.enterSnapshot('k')).toThrow(expect.objectContaining({ code: 'RATE_LIMITED' }));
    expect(() => bounds.enterSnapshot('other')).not.toThrow();
  });
});
