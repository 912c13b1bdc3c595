import fc from 'fast-check';
import type { ConflictPolicy } from '../merge.js';
import type { StoreRules } from './model-store.js';
import { ModelWorld, type Decision } from './model-world.js';

/** How many worlds; this and the next two are given for long runs by hand. */
export const WORLDS = Number(process.env['SYNC_MODEL_RUNS'] ?? 200);
/** The most decisions that fall in one. */
const STEPS = Number(process.env['SYNC_MODEL_STEPS'] ?? 500);
const SEED = Number(process.env['SYNC_MODEL_SEED'] ?? Date.now() % 2 ** 31);
/** What repeats the series. */
export const SERIES = `${WORLDS} worlds, seed ${SEED}`;
/** A long run by hand takes hours. */
export const SERIES_LIMIT_MS = 24 * 3_600_000;

const POLICIES: ConflictPolicy[] = ['copy', 'copy', 'markers', 'mine', 'theirs'];

/**
 * Drives random worlds to rest and finds no fault in them; the shortest one that has a fault is told otherwise.
 * @param aStore how the store of each world decides; left out, as the model of protocol 2 does
 * @param more what else must hold when a world is at rest
 * @throws Error with the decisions and the faults
 */
export async function converges(
  aStore?: () => StoreRules,
  more?: (world: ModelWorld) => string[],
): Promise<{ worlds: number; steps: number; tokens: number }> {
  let steps = 0;
  let tokens = 0;
  let worlds = 0;
  const from = performance.now();
  const decision: fc.Arbitrary<Decision> = fc.tuple(fc.nat(99), fc.nat(9), fc.nat((1 << 20) - 1));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...POLICIES), { minLength: 2, maxLength: 4 }),
      fc.array(decision, { maxLength: STEPS, size: 'max' }),
      async (policies, decisions) => {
        const world = new ModelWorld(policies, aStore?.());
        for (const each of decisions) await world.decide(each);
        await world.heal();
        const faults = [...world.faults(), ...(more?.(world) ?? [])];
        if (faults.length > 0) throw new Error(faults.join('\n'));
        [worlds, steps, tokens] = [worlds + 1, steps + world.steps, tokens + world.typed.length];
      },
    ),
    { numRuns: WORLDS, seed: SEED, endOnFailure: process.env['SYNC_MODEL_SHRINK'] === 'no' },
  );
  const seconds = Math.round((performance.now() - from) / 1_000);
  if (process.env['SYNC_MODEL_RUNS'] !== undefined) {
    process.stdout.write(`${worlds} worlds, ${steps} steps, ${tokens} tokens in ${seconds} s, seed ${SEED}\n`);
  }
  return { worlds, steps, tokens };
}
