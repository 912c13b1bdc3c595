import { backoffMs, uuidv7, type Backoff, type TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import { textArray, type SystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { MAX_IDEMPOTENCY_KEY } from './idempotency.js';
import { physicalTable, readBuild, readBuilds } from './projections/builds.js';
import { lockCheckpoints } from './projections/checkpoints.js';
import { readStream } from './read.js';
import { destroySubjectKey } from './subject-keys.js';
import type { EventOpener, StateSealer } from './snapshots.js';

/** For so long nobody else takes an erasure that somebody works on; one whose process died goes on after it. */
const CLAIM_MS = 60_000;
/** Between attempts at what fails: what is broken is mended by people, and until then it is tried for ever. */
const RETRY: Backoff = { firstMs: 1_000, maxMs: 300_000 };
/** Events that are opened at once. */
const PAGE = 500;
/** Characters of a value that is looked for in errors, of which the end may be cut off. */
const MAX_SOUGHT_CHARS = 1_000;
/** What stands where an error said something of an event whose subject was erased. */
export const ERASED_WORDS = '[erased]';

/**
 * A subject that is to be erased. It is written down in the transaction of the event that says so, and is over when nothing is left:
 * every step may be taken again, so whoever dies in the middle leaves it to the next.
 */
export interface Erasure {
  readonly id: string;
  readonly tenant: TenantId;
  /** Its stream. */
  readonly subject: string;
  /** That of the event by which it was erased: what came later stays. */
  readonly version: number;
  /** Keys up to it are destroyed. */
  readonly generation: number;
  readonly requestedBy: string;
  readonly requestedAt: Date;
  readonly completedAt: Date | null;
  readonly attempts: number;
  /** The code of what stopped the last attempt. */
  readonly lastError: string | null;
}

/** What an erasure looks for beyond the subject's own stream. Kept sealed until it is over. */
export interface Sought {
  /** E-mail addresses that the subject had, in lower case. */
  readonly addresses: readonly string[];
  /** Every other text that was personal. */
  readonly values: readonly string[];
}

const COLUMNS = `id, tenant_id as tenant, subject, subject_version as version, key_generation as generation,
  requested_by as "requestedBy", requested_at as "requestedAt", completed_at as "completedAt", attempts, last_error as "lastError"`;

/**
 * Writes down that a subject is to be erased, in the transaction that appends the event.
 * @param order `generation`: what SubjectKeys.renew has answered in this transaction
 */
export async function requestErasure(
  tx: Tx,
  order: Pick<Erasure, 'tenant' | 'subject' | 'version' | 'generation' | 'requestedBy'>,
): Promise<void> {
  await tx.execute(
    `insert into subject_erasures (id, tenant_id, subject, subject_version, key_generation, requested_by)
     values ($1, $2, $3, $4, $5, $6)`,
    [uuidv7(), order.tenant, order.subject, order.version, order.generation, order.requestedBy],
  );
}

/** The erasures of the transaction's tenant, of one subject if it is given, newest first, from behind `after` on. */
export function listErasures(
  tx: Tx,
  page: { readonly subject: string | null; readonly after: string | null; readonly limit: number },
): Promise<Erasure[]> {
  return tx.query<Erasure>(
    `select ${COLUMNS} from subject_erasures
     where ($1::text is null or subject = $1) and ($2::uuid is null or id < $2) order by id desc limit $3`,
    [page.subject, page.after, page.limit],
  );
}

/** Takes an erasure that is due, so that nobody else does for a minute; null when none is. */
export function claimErasure(database: SystemDatabase): Promise<Erasure | null> {
  return database.transaction(async (tx) => {
    const [erasure] = await tx.query<Erasure>(
      `update subject_erasures
       set attempts = attempts + 1, next_attempt_at = clock_timestamp() + $1 * interval '1 millisecond'
       where id = (
         select id from subject_erasures where completed_at is null and next_attempt_at <= clock_timestamp()
         order by next_attempt_at limit 1 for update skip locked
       ) returning ${COLUMNS}`,
      [CLAIM_MS],
    );
    return erasure ?? null;
  });
}

/** Notes by its code what stopped an attempt, and when to try again. */
export async function postponeErasure(
  database: SystemDatabase,
  { id, attempts }: Erasure,
  code: string,
): Promise<void> {
  await database.transaction((tx) =>
    tx.execute(
      `update subject_erasures set last_error = $2, next_attempt_at = clock_timestamp() + $3 * interval '1 millisecond'
       where id = $1 and completed_at is null`,
      [id, code, backoffMs(attempts, RETRY)],
    ),
  );
}

/**
 * Makes all that the log says of a subject up to the erasure unreadable, in one transaction: its keys, snapshots, and what kept
 * answers tell of its commands. Before that it gathers what is to be looked for elsewhere, and keeps that sealed with the
 * erasure. Again, it answers what was gathered.
 *
 * A command that is repeated under its key is refused from then on instead of answered: its fingerprint, by which whoever guesses
 * a value could make sure of it, is gone. A key in which a value stands goes altogether.
 * @param gather what is to be looked for, page by page of the subject's events
 */
export function eraseFromLog(
  database: SystemDatabase,
  codec: EventOpener & StateSealer,
  erasure: Erasure,
  gather: (events: readonly RecordedEvent[]) => Sought,
): Promise<Sought> {
  const { id, tenant, subject, version, generation } = erasure;
  const own = ownSubject(id);
  return database.transaction(async (tx) => {
    const [row] = await tx.query<{ sought: Readonly<Record<string, unknown>> | null; done: boolean }>(
      'select sought, log_erased_at is not null as done from subject_erasures where id = $1 for update',
      [id],
    );
    if (row!.done) {
      const kept = row!.sought && (await codec.openState(tx, tenant, own, row!.sought));
      return { addresses: [], values: [], ...(kept as Partial<Sought> | null) };
    }
    const [addresses, values] = [new Set<string>(), new Set<string>()];
    for (let from = 1; from <= version; from += PAGE) {
      const stored = await readStream(tx, tenant, subject, { from, limit: Math.min(PAGE, version - from + 1) });
      const found = gather(await codec.decode(tx, stored));
      for (const address of found.addresses) addresses.add(address);
      for (const value of found.values) values.add(value);
    }
    const sought: Sought = { addresses: [...addresses], values: [...values] };
    const personal = { subject: own, fields: ['addresses', 'values'] };
    const sealed = await codec.sealState(tx, tenant, own, { ...sought }, personal);
    await tx.execute(
      'update subject_erasures set sought = $2, log_erased_at = clock_timestamp(), last_error = null where id = $1',
      [id, JSON.stringify(sealed)],
    );
    await destroySubjectKey(tx, tenant, subject, generation);
    await tx.execute('delete from stream_snapshots where tenant_id = $1 and stream = $2 and stream_version <= $3', [
      tenant,
      subject,
      version,
    ]);
    await eraseFromAnswers(tx, tenant, subject.slice(subject.indexOf('-') + 1), [...addresses, ...values]);
    return sought;
  });
}

/** No index helps to find them: they are looked through for each erasure, so that no command has to write one more. */
async function eraseFromAnswers(tx: Tx, tenant: TenantId, record: string, values: readonly string[]): Promise<void> {
  // Of a command about many records the answer as a whole has the fingerprint; its parts have longer keys (see partKeys in commands).
  await tx.execute(
    `update command_answers set fingerprint = ''
     where tenant_id = $1 and (record_id = $2 or key in (
       select rtrim(left(key, ${MAX_IDEMPOTENCY_KEY})) from command_answers
       where tenant_id = $1 and record_id = $2 and length(key) > ${MAX_IDEMPOTENCY_KEY}))`,
    [tenant, record],
  );
  await tx.execute(`delete from command_answers where tenant_id = $1 and ${holdsSome('key', '$2')}`, [
    tenant,
    textArray(values),
  ]);
}

/**
 * Takes a subject out of every build of the projections, whichever state it is in, one after the other, and what errors
 * said of it. To be called once its keys are gone. Each build's checkpoints are locked for a moment: a batch that was opened
 * before ends before, and what is opened later reads null.
 * @param erase takes it out of one build, whose tables have these names now
 */
export async function eraseFromBuilds(
  database: SystemDatabase,
  { tenant, subject }: Erasure,
  sought: Sought,
  projections: readonly string[] | null,
  erase: (tx: Tx, table: (base: string) => string | null) => Promise<void>,
): Promise<void> {
  const all = await database.transaction((tx) => readBuilds(tx, projections));
  for (const { projection, build: number } of all) {
    await database.transaction(async (tx) => {
      await lockCheckpoints(tx, projection, [number]);
      const build = await readBuild(tx, projection, number);
      if (!build?.hasTables) return;
      await erase(tx, (base) => (build.tables.includes(base) ? physicalTable(build, base) : null));
    });
  }
  const values = textArray([...sought.addresses, ...sought.values].map((value) => value.slice(0, MAX_SOUGHT_CHARS)));
  await database.transaction(async (tx) => {
    await tx.execute(
      `update projection_dead_letters set error = $3, stack = '', reason = case when ${holdsSome('reason', '$4')} then $3 else reason end
       where tenant_id = $1 and stream = $2`,
      [tenant, subject, ERASED_WORDS, values],
    );
    // An error of a batch may be of any of its events.
    const others = {
      projection_checkpoints: ['last_error'],
      projection_builds: ['error'],
      projection_dead_letters: ['error', 'stack'],
    };
    for (const [table, columns] of Object.entries(others)) {
      const set = columns.map((column) => `${column} = $2`).join(', ');
      const where = columns.map((column) => holdsSome(column, '$1')).join(' or ');
      await tx.execute(`update ${table} set ${set} where ${where}`, [values, ERASED_WORDS]);
    }
  });
}

/** SQL: whether a text has one of the values in it. */
function holdsSome(column: string, values: string): string {
  return `exists (select 1 from unnest(${values}::text[]) v where v <> '' and position(v in ${column}) > 0)`;
}

/** The end: what was looked for is forgotten. */
export async function completeErasure(database: SystemDatabase, { id, tenant }: Erasure): Promise<void> {
  await database.transaction(async (tx) => {
    await tx.execute(
      `update subject_erasures set sought = null, last_error = null, completed_at = clock_timestamp()
       where id = $1 and completed_at is null`,
      [id],
    );
    await destroySubjectKey(tx, tenant, ownSubject(id));
  });
}

/** Under which key an erasure keeps what it looks for. */
function ownSubject(id: string): string {
  return `erasure-${id}`;
}
