/** The plans that a tenant may be on; the check of the table says the same. */
export const PLANS = ['free', 'solo', 'team', 'enterprise'] as const;
/** The name of a plan. */
export type Plan = (typeof PLANS)[number];

/** Whether a word is the name of a plan. */
export function isPlan(word: string): word is Plan {
  return (PLANS as readonly string[]).includes(word);
}

/** What a plan limits. */
export interface Quota {
  readonly unit: string;
  /** `count`: how many at a time. `month`: how much in a calendar month (UTC), by the ledger. `minute`: how often in a minute. */
  readonly kind: 'count' | 'month' | 'minute';
  /** Why there is a limit at all. */
  readonly reason: string;
  /** How much each plan allows; null: no limit. */
  readonly limits: Readonly<Record<Plan, number | null>>;
}

/**
 * Everything that plans limit, and nothing that is not enforced. An operator can set another limit for a tenant
 * (`npm run tenants -- limit`); who sells other plans changes this table and nothing else.
 */
export const QUOTAS = {
  users: {
    unit: 'users',
    kind: 'count',
    reason: 'What plans are priced by. Disabled users count, because they can be let in again at any time.',
    limits: { free: 3, solo: 5, team: 100, enterprise: null },
  },
  apiTokens: {
    unit: 'tokens',
    kind: 'count',
    reason:
      'Each program that may come in is one more that can lose its secret: as many as a team of that size looks after.',
    limits: { free: 2, solo: 10, team: 100, enterprise: null },
  },
  importedRecords: {
    unit: 'records',
    kind: 'month',
    reason:
      'Each record that is new or changed is parsed, embedded, indexed and kept. What memory has already costs nothing.',
    limits: { free: 10_000, solo: 100_000, team: 2_000_000, enterprise: null },
  },
  uploadedBytes: {
    unit: 'bytes',
    kind: 'month',
    reason: 'Archives that are uploaded stay, so that they can be read again: disk, backups and the way there.',
    limits: { free: 1024 ** 3, solo: 10 * 1024 ** 3, team: 200 * 1024 ** 3, enterprise: null },
  },
  requestsPerMinute: {
    unit: 'requests',
    kind: 'minute',
    reason:
      'One tenant must not take the machine from the others: five a second for a person, what an application of that size asks beyond.',
    limits: { free: 300, solo: 1_200, team: 12_000, enterprise: null },
  },
} as const satisfies Readonly<Record<string, Quota>>;

/** The name of something that plans limit. */
export type QuotaName = keyof typeof QUOTAS;
/** Those that are counted when something is made. */
export type CountedQuota = QuotaOfKind<'count'>;
/** Those that the ledger keeps. */
export type MonthlyQuota = QuotaOfKind<'month'>;
/** Those that are rates, of which nothing is kept. */
export type RatedQuota = QuotaOfKind<'minute'>;
type QuotaOfKind<Kind> = { [Name in QuotaName]: (typeof QUOTAS)[Name]['kind'] extends Kind ? Name : never }[QuotaName];
/** All of them, in the order in which they are shown. */
export const QUOTA_NAMES = Object.keys(QUOTAS) as readonly QuotaName[];

/** Whether a word is the name of something that plans limit. */
export function isQuota(word: string): word is QuotaName {
  return Object.hasOwn(QUOTAS, word);
}

/** Whether a word is the name of something that the ledger keeps. */
export function isMonthly(word: string): word is MonthlyQuota {
  return isQuota(word) && QUOTAS[word].kind === 'month';
}
