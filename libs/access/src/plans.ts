/**
 * What a plan allows a tenant; null is without limit. Limits are data: who sells other plans changes this table and nothing else.
 */
export interface PlanLimits {
  /** People who may log in. */
  readonly users: number | null;
  /** Records that imports may bring in, each calendar month (UTC). */
  readonly importedRecords: number | null;
}

/** The plans that a tenant may be on. */
export const PLANS = {
  free: { users: 3, importedRecords: 10_000 },
  solo: { users: 5, importedRecords: 100_000 },
  team: { users: 100, importedRecords: 2_000_000 },
  enterprise: { users: null, importedRecords: null },
} as const satisfies Readonly<Record<string, PlanLimits>>;
/** The name of a plan. */
export type Plan = keyof typeof PLANS;

/** Whether a word is the name of a plan. */
export function isPlan(word: string): word is Plan {
  return Object.hasOwn(PLANS, word);
}
