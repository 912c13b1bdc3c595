import { createHash } from 'node:crypto';
import type { TenantId } from '@atomo-cc/kernel';
import { intArray, sqlState, textArray, violatedConstraint, type Tx } from '@atomo-cc/platform/postgres';

/** A key is chosen by the caller; a UUID has 36 characters, and keys made of a few parts stay below this. */
export const MAX_IDEMPOTENCY_KEY = 200;

/** What a command answered when its key was first used: enough to find what it did, and nothing personal. */
export interface KeptAnswer {
  readonly key: string;
  /** Of the command: the same key with another command is a mistake that must not be taken for a repeat. */
  readonly fingerprint: string;
  readonly recordId: string;
  readonly version: number;
}

/** A short name for everything a command says, the same for the same command. */
export function fingerprintOf(command: unknown): string {
  return createHash('sha256').update(JSON.stringify(command)).digest('hex');
}

/** The answers kept under these keys, by key. */
export async function findAnswers(tx: Tx, tenant: TenantId, keys: readonly string[]): Promise<Map<string, KeptAnswer>> {
  if (keys.length === 0) return new Map();
  const rows = await tx.prepared<KeptAnswer>(
    `select key, fingerprint, record_id as "recordId", version from command_answers
     where tenant_id = $1 and key = any($2)`,
    [tenant, keys],
  );
  return new Map(rows.map((row) => [row.key, row]));
}

/**
 * Keeps answers, in the transaction of their commands: they are found later if, and only if, the commands took effect. Two
 * transactions that use one key at the same time end with an error in the second (see `Tx.send`), which then finds the first
 * one's answer when it is tried again.
 */
export function keepAnswers(tx: Tx, tenant: TenantId, answers: readonly KeptAnswer[]): void {
  if (answers.length === 0) return;
  tx.send(
    `insert into command_answers (tenant_id, key, fingerprint, record_id, version)
     select $1, a.key, a.fingerprint, a.record_id, a.version
     from unnest($2::text[], $3::text[], $4::text[]::uuid[], $5::int[]) as a (key, fingerprint, record_id, version)
     order by a.key`,
    [
      tenant,
      textArray(answers.map(({ key }) => key)),
      textArray(answers.map(({ fingerprint }) => fingerprint)),
      textArray(answers.map(({ recordId }) => recordId)),
      intArray(answers.map(({ version }) => version)),
    ],
  );
}

/** True for the error of a transaction whose key another transaction has used meanwhile. */
export function isAnswerTaken(error: unknown): boolean {
  return sqlState(error) === '23505' && violatedConstraint(error) === 'command_answers_pkey';
}
