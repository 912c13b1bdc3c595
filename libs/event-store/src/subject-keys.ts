import { createSecretKey, randomBytes, type KeyObject } from 'node:crypto';
import type { TenantId } from '@atomo-cc/kernel';
import { KEY_BYTES, KeyRing, type WrappedKey } from '@atomo-cc/platform/encryption';
import { byteaArray, intArray, type SystemDatabase, textArray, type Tx } from '@atomo-cc/platform/postgres';

/**
 * Rounds of finding and making the keys of a batch. One does it, a second is needed where another process makes a key at the
 * same time; more only when erasures come between, again and again.
 */
const MAX_ROUNDS = 5;

/** Keys that are wrapped anew in one transaction: a tenth of a second, for which their rows are locked. */
const KEYS_PER_REWRAP = 500;

/** The key under which new data of a subject is sealed. */
export interface SubjectKey {
  /** From 1 on; each erasure of the subject begins the next. */
  readonly generation: number;
  readonly key: KeyObject;
}

/** Names the key of one generation. */
export interface SubjectKeyName {
  readonly tenant: TenantId;
  readonly subject: string;
  readonly generation: number;
}

interface KeyRow {
  readonly subject: string;
  readonly generation: number;
  readonly wrapped: Buffer | null;
  readonly wrapped_by: string;
}

/** A key as it is stored, for who has read it along with what it opens. */
export interface StoredKey extends SubjectKeyName {
  /** Null: it was destroyed. */
  readonly wrapped: Buffer | null;
  readonly wrappedBy: string;
}

/** A key that is to be made. */
type MissingKey = Pick<SubjectKeyName, 'subject' | 'generation'>;

const NO_SUBJECTS: ReadonlySet<string> = new Set();

// Each subject by the primary key, one step down it: a join would be planned by guesses about the arrays.
const FIND_LATEST = `
  select n::int, k.generation, k.wrapped, k.wrapped_by
  from unnest($2::text[]) with ordinality as w (subject, n)
  cross join lateral (
    select generation, wrapped, wrapped_by from subject_keys s
    where s.tenant_id = $1 and s.subject = w.subject order by s.generation desc limit 1) k`;

const FIND = `
  select n::int, k.wrapped, k.wrapped_by
  from unnest($1::text[]::uuid[], $2::text[], $3::int[]) with ordinality as w (tenant_id, subject, generation, n)
  cross join lateral (
    select wrapped, wrapped_by from subject_keys s
    where s.tenant_id = w.tenant_id and s.subject = w.subject and s.generation = w.generation limit 1) k`;

const MAKE = `
  with made as (
    insert into subject_keys (tenant_id, subject, generation, wrapped, wrapped_by)
    select $1, subject, generation, wrapped, $5
    from unnest($2::text[], $3::int[], $4::bytea[]) with ordinality as w (subject, generation, wrapped, n)
    order by n on conflict do nothing returning 1
  )
  select count(*)::int as made from made`;

/**
 * The keys of subjects: random, 256 bits, one for each subject and generation, kept wrapped under a key-encryption key that
 * never reaches the database. None is kept in memory beyond a call, so that a destroyed key opens nothing from the commit on,
 * in any process.
 */
export class SubjectKeys {
  /** What they are wrapped under. */
  readonly ring: KeyRing;

  /**
   * @param encryptionKey ENCRYPTION_KEY
   * @param accepted ENCRYPTION_KEYS_ACCEPTED
   */
  constructor(encryptionKey: string, accepted: readonly string[] = []) {
    this.ring = new KeyRing(encryptionKey, accepted);
  }

  /**
   * The keys for new data of these subjects, made where there is none: one statement where all have one, or all are said to be
   * new; two otherwise. Of two processes that make a key at the same time, the one that comes second waits for the other and
   * uses its key. An erasure that commits between this and the caller's commit erases what the caller writes as well.
   * @param fresh those that probably have no key: they are not looked for but made, and found only if they were there after all
   * @throws CodedError ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN
   */
  async current(
    tx: Tx,
    tenant: TenantId,
    subjects: Iterable<string>,
    fresh: ReadonlySet<string> = NO_SUBJECTS,
  ): Promise<Map<string, SubjectKey>> {
    const found = new Map<string, SubjectKey>();
    const all = [...new Set(subjects)];
    const missing = all.filter((subject) => fresh.has(subject)).map((subject) => ({ subject, generation: 1 }));
    let unknown = missing.length === 0 ? all : all.filter((subject) => !fresh.has(subject));
    for (let round = 1; unknown.length > 0 || missing.length > 0; round += 1) {
      if (round > MAX_ROUNDS) throw new Error('keys of subjects come and go faster than they can be found');
      if (unknown.length > 0) missing.push(...(await this.#findLatest(tx, tenant, unknown, found)));
      unknown =
        missing.length > 0 && !(await this.#make(tx, tenant, missing, found)) ? missing.map((m) => m.subject) : [];
      missing.length = 0;
    }
    return found;
  }

  /**
   * Makes what is written about a subject from here on independent of what was: it is sealed under the next generation of the
   * key. The caller keeps others from writing about the subject until the commit.
   * @returns the generation up to which keys are to be destroyed (see destroySubjectKey); 0 where there never was one
   */
  async renew(tx: Tx, tenant: TenantId, subject: string): Promise<number> {
    const found = new Map<string, SubjectKey>();
    const [missing] = await this.#findLatest(tx, tenant, [subject], found);
    if (missing) return missing.generation - 1;
    const { generation } = found.get(subject)!;
    await this.#make(tx, tenant, [{ subject, generation: generation + 1 }], found);
    return generation;
  }

  /** Finds the newest keys of subjects, and answers which are still to be made. */
  async #findLatest(
    tx: Tx,
    tenant: TenantId,
    subjects: readonly string[],
    found: Map<string, SubjectKey>,
  ): Promise<MissingKey[]> {
    const rows = await tx.prepared<Omit<KeyRow, 'subject'> & { n: number }>(FIND_LATEST, [tenant, textArray(subjects)]);
    const missing = new Map(subjects.map((subject) => [subject, 1]));
    for (const { n, generation, wrapped, wrapped_by } of rows) {
      const subject = subjects[n - 1]!;
      if (wrapped) {
        found.set(subject, { generation, key: this.#unwrap({ tenant, subject, generation }, { wrapped, wrapped_by }) });
        missing.delete(subject);
      } else missing.set(subject, generation + 1);
    }
    return [...missing].map(([subject, generation]) => ({ subject, generation }));
  }

  /** Makes keys. False when some are there by now, so that all have to be looked for: then `found` has none of them. */
  async #make(tx: Tx, tenant: TenantId, missing: MissingKey[], found: Map<string, SubjectKey>): Promise<boolean> {
    // In the order of their names, so that two batches wait for each other instead of deadlocking.
    missing.sort((a, b) => (a.subject < b.subject ? -1 : 1));
    const bytes = randomBytes(KEY_BYTES * missing.length);
    const keys = missing.map((_, index) => bytes.subarray(KEY_BYTES * index, KEY_BYTES * (index + 1)));
    const wrapped = missing.map((name, index) => this.ring.wrap(contextOf({ tenant, ...name }), keys[index]!));
    const [row] = await tx.prepared<{ made: number }>(MAKE, [
      tenant,
      textArray(missing.map(({ subject }) => subject)),
      intArray(missing.map(({ generation }) => generation)),
      byteaArray(wrapped),
      this.ring.id,
    ]);
    if (row!.made < missing.length) return false;
    for (const [index, { subject, generation }] of missing.entries()) {
      found.set(subject, { generation, key: createSecretKey(keys[index]!) });
    }
    return true;
  }

  /**
   * The keys of these generations, of any tenants that the transaction may see, in one statement: null for a key that was
   * destroyed. One that never was is missing from the answer.
   * @param names by whatever the caller likes to find them again
   * @param read keys that the caller has read already: no statement where these are all
   * @throws CodedError ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN
   */
  async find<Name>(
    tx: Tx,
    names: ReadonlyMap<Name, SubjectKeyName>,
    read: readonly StoredKey[] = [],
  ): Promise<Map<Name, KeyObject | null>> {
    const found = new Map<Name, KeyObject | null>();
    const known = new Map(read.map((key) => [contextOf(key).join(' '), key]));
    const all = [...names].filter(([name, of]) => {
      const key = known.get(contextOf(of).join(' '));
      if (key) found.set(name, key.wrapped && this.#unwrap(of, { wrapped: key.wrapped, wrapped_by: key.wrappedBy }));
      return key === undefined;
    });
    if (all.length === 0) return found;
    const rows = await tx.prepared<Omit<KeyRow, 'subject' | 'generation'> & { n: number }>(FIND, [
      textArray(all.map(([, { tenant }]) => tenant)),
      textArray(all.map(([, { subject }]) => subject)),
      intArray(all.map(([, { generation }]) => generation)),
    ]);
    for (const { n, wrapped, wrapped_by } of rows) {
      const [name, of] = all[n - 1]!;
      found.set(name, wrapped && this.#unwrap(of, { wrapped, wrapped_by }));
    }
    return found;
  }

  /**
   * Looks whether the keys that are there can be unwrapped, by one of them: to be asked at the start, because a process with
   * another ENCRYPTION_KEY would wrap new keys under it and leave the data in two halves.
   * @param tx of the system role, which sees the keys of all tenants
   * @throws CodedError ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN
   */
  async check(tx: Tx): Promise<void> {
    const [row] = await tx.query<KeyRow & { tenant_id: TenantId; wrapped: Buffer }>(
      'select tenant_id, subject, generation, wrapped, wrapped_by from subject_keys where wrapped is not null limit 1',
    );
    if (row) this.#unwrap({ ...row, tenant: row.tenant_id }, row);
  }

  /** How many keys there are under each key-encryption key, by its id. */
  async counts(tx: Tx): Promise<{ readonly id: string; readonly keys: number }[]> {
    const rows = await tx.query<{ id: string; keys: string }>(
      `select wrapped_by as id, count(*) as keys from subject_keys where wrapped is not null group by 1 order by 1`,
    );
    return rows.map(({ id, keys }) => ({ id, keys: Number(keys) }));
  }

  /**
   * Wraps all keys that are under another key-encryption key under the one in use, while readers and writers go on: what is
   * sealed stays as it is. In small transactions, so after an interruption it is called again and goes on with those that are
   * left. It ends when a whole round has found none; keys that processes with the former key make after that take another call.
   * @param onProgress told after each transaction how many there were so far
   * @returns how many were wrapped anew
   * @throws CodedError ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN; what was wrapped until then stays so
   */
  async rewrap(system: SystemDatabase, onProgress: (keys: number) => void = () => undefined): Promise<number> {
    let total = 0;
    for (let before = -1; before !== total;) {
      before = total;
      let after: readonly [string, string, number] | null = ['00000000-0000-0000-0000-000000000000', '', 0];
      while (after) {
        const from: readonly [string, string, number] = after;
        const { keys, last } = await system.transaction((tx) => this.#rewrapSome(tx, from));
        total += keys;
        if (keys > 0) onProgress(total);
        after = last;
      }
    }
    return total;
  }

  async #rewrapSome(tx: Tx, after: readonly [string, string, number]) {
    // Locked, so that a key that is destroyed at this moment stays destroyed.
    const rows = await tx.query<KeyRow & { tenant_id: TenantId; wrapped: Buffer }>(
      `select tenant_id, subject, generation, wrapped, wrapped_by from subject_keys
       where (tenant_id, subject, generation) > ($1::uuid, $2::text, $3::int) and wrapped is not null and wrapped_by <> $4
       order by tenant_id, subject, generation limit ${KEYS_PER_REWRAP} for update`,
      [...after, this.ring.id],
    );
    const anew = rows.map((row) => {
      const name = { ...row, tenant: row.tenant_id };
      return this.ring.wrap(contextOf(name), this.#unwrap(name, row).export());
    });
    await tx.execute(
      `update subject_keys k set wrapped = n.wrapped, wrapped_by = $5
       from unnest($1::text[]::uuid[], $2::text[], $3::int[], $4::bytea[]) as n (tenant_id, subject, generation, wrapped)
       where (k.tenant_id, k.subject, k.generation) = (n.tenant_id, n.subject, n.generation)`,
      [
        textArray(rows.map(({ tenant_id }) => tenant_id)),
        textArray(rows.map(({ subject }) => subject)),
        intArray(rows.map(({ generation }) => generation)),
        byteaArray(anew),
        this.ring.id,
      ],
    );
    const end = rows.length < KEYS_PER_REWRAP ? undefined : rows.at(-1);
    return { keys: rows.length, last: end ? ([end.tenant_id, end.subject, end.generation] as const) : null };
  }

  #unwrap(name: SubjectKeyName, wrapped: WrappedKey): KeyObject {
    return this.ring.unwrap(contextOf(name), wrapped, `key ${name.generation} of ${name.subject}`);
  }
}

function contextOf({ tenant, subject, generation }: SubjectKeyName): readonly unknown[] {
  return ['atomo subject key', tenant, subject, generation];
}

/**
 * Destroys the subject's key: from the commit on, all that was sealed under it reads as null, in events and snapshots alike,
 * and nobody can undo it. What is written about the subject later is sealed under the next generation. Backups and the
 * dead row, until Postgres vacuums it, still have the wrapped key.
 * @param tx of the system role: nobody who serves requests can destroy a key
 * @param upTo the last generation to be destroyed; all of them unless given
 * @returns how many keys were destroyed; 0 for a subject that has none
 */
export function destroySubjectKey(tx: Tx, tenant: TenantId, subject: string, upTo?: number): Promise<number> {
  return tx.execute(
    `update subject_keys set wrapped = null, destroyed_at = clock_timestamp()
     where tenant_id = $1 and subject = $2 and wrapped is not null and ($3::int is null or generation <= $3)`,
    [tenant, subject, upTo ?? null],
  );
}

/** Whether a key of the subject was destroyed after a moment: then what was written up to it is not known any more. */
export async function wasErasedSince(tx: Tx, tenant: TenantId, subject: string, since: Date): Promise<boolean> {
  const [row] = await tx.query<{ erased: boolean }>(
    `select exists (select 1 from subject_keys where tenant_id = $1 and subject = $2 and destroyed_at > $3) as erased`,
    [tenant, subject, since],
  );
  return row!.erased;
}
