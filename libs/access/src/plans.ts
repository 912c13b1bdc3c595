/** The plans that a tenant may be on; the check of the table says the same. A plan is a name so far, and limits nothing. */
export const PLANS = ['free', 'solo', 'team', 'enterprise'] as const;
/** The name of a plan. */
export type Plan = (typeof PLANS)[number];

/** Whether a word is the name of a plan. */
export function isPlan(word: string): word is Plan {
  return (PLANS as readonly string[]).includes(word);
}
