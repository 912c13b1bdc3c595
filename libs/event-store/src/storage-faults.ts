import { CodedError } from '@atomo-cc/kernel';
import { fateOf, sqlState } from '@atomo-cc/platform/postgres';

/** Faults of the database under the log, by what is known of the write that met them. */
export const STORAGE_ERRORS = {
  LOG_STORAGE_FULL:
    'Postgres has no room on its disk, no memory or no connection left, and nothing was written. Give it what the cause names; then writes go on by themselves.',
  LOG_OUTCOME_UNKNOWN:
    'The connection to Postgres broke, or went silent, while a commit was under way: it is open whether it was written. A repeat with the same idempotencyKey takes effect once.',
} as const;

/** SQLSTATE class of insufficient resources: disk full, out of memory, too many connections. */
const NO_RESOURCES = /^53/;

/**
 * What an error of a transaction means for what it was to write, or null where the storage was not at fault. LOG_OUTCOME_UNKNOWN
 * alone leaves open whether it was written, so nobody may repeat that by themselves; with LOG_STORAGE_FULL and
 * DATABASE_UNREACHABLE nothing was. The error itself is the cause.
 */
export function storageFault(error: unknown): CodedError | null {
  const fate = fateOf(error);
  const coded = (code: string, message: string) => new CodedError(code, message, undefined, { cause: error });
  // Before the SQLSTATE: a server that goes down over a full disk may have committed what it was about to.
  if (fate === 'open') return coded('LOG_OUTCOME_UNKNOWN', 'It is open whether a transaction was committed');
  if (NO_RESOURCES.test(sqlState(error) ?? '')) {
    return coded('LOG_STORAGE_FULL', 'Postgres has no room or resources left for a transaction');
  }
  return fate === 'undone' ? coded('DATABASE_UNREACHABLE', 'Postgres did not answer before the commit') : null;
}
