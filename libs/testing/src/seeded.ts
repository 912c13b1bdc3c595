/** Numbers from 0 to below 1 that the same seed gives again (mulberry32), so that a failure can be repeated. */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A seed for a randomised test, printed under its name: `SEED=… npm test -- <file>` runs it the same again. */
export function aSeed(what: string): number {
  const seed = Number(process.env['SEED'] || Date.now() % 2 ** 31);
  process.stdout.write(`${what}, seed ${seed}\n`);
  return seed;
}
