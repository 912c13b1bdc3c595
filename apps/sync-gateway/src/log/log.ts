import type { Tx } from '@atomo-cc/platform/postgres';
import {
  type Change,
  type Changes,
  type Conflict,
  CONFLICT_COPY,
  conflictOf,
  type Conflicts,
  type ContentHash,
  EMPTY_DIGEST,
  EMPTY_HASH,
  DIGEST_FOLDERS,
  type DigestAnswer,
  type DigestCount,
  digestOf,
  fileKind,
  type FileState,
  HINT_LIMIT_BYTES,
  INLINE_LIMIT_BYTES,
  PAGE_LIMIT,
  PAGE_LIMIT_BYTES,
  pathKey,
  syncError,
  type SyncPath,
  type TrashedFile,
  type Version,
} from '@atomo-cc/sync-protocol';
import type { Carriage } from '../contents/index.js';
import { covers, type StoreKey } from '../credentials/index.js';
import { noStore } from '../stores/index.js';

/** A change as the log has it. */
export interface Logged {
  readonly seq: number;
  readonly op: 'create' | 'modify' | 'delete' | 'rename';
  readonly fileId: string;
  readonly path: SyncPath;
  readonly oldPath: SyncPath | null;
  /** Null after a deletion. */
  readonly hash: ContentHash | null;
  readonly size: number;
  readonly oldHash: ContentHash | null;
  /** How protocol 1 shows the file after the change; null when it cannot. */
  readonly as: Carriage | null;
  readonly keyId: string;
  readonly device: string | null;
  readonly opId: string | null;
  readonly at: Date;
  /** The bytes, when they are at hand. */
  readonly bytes?: Buffer | null;
}

/** What a key may see: the question is the same for sockets, long polls and lists. */
export type Scope = Pick<StoreKey, 'storeId' | 'prefixes'>;

/** Where a store stands. */
export interface Standing {
  readonly epoch: string;
  readonly head: number;
  readonly floor: number;
}

/** What protocol 1 derives from the name, and what it needs to know besides: whether the content is base64. */
export function kindOf(path: SyncPath, as: Carriage | null): { extension: string | null; isBinary: boolean } {
  const { extension, isBinary } = fileKind(path);
  return { extension, isBinary: isBinary || as === 'base64' };
}

/** 64 bits as a bigint of Postgres, which has a sign. */
export function asSigned(bits: bigint): string {
  return BigInt.asIntN(64, bits).toString();
}

/** The digest that a bigint of Postgres stands for. */
function digestFrom(signed: string | null): DigestCount['digest'] {
  return signed === null ? EMPTY_DIGEST : digestOf([BigInt.asUintN(64, BigInt(signed))]);
}

/**
 * A change as a key sees it; null when it is none of its business. What moves into its folders appears there, and what
 * moves out of them is deleted.
 */
export function seenBy(scope: Pick<StoreKey, 'prefixes'>, change: Logged): Change | null {
  const isHere = covers(scope, change.path);
  const wasHere = change.oldPath === null ? isHere : covers(scope, change.oldPath);
  if (!isHere && !wasHere) return null;
  const { seq, fileId, oldHash, keyId, device, opId } = change;
  const shared = { seq, fileId, oldHash, keyId, device, ...(opId !== null && { opId }), at: change.at.toISOString() };
  if (!isHere) return { ...shared, op: 'delete', path: change.oldPath!, hash: null, size: 0 };
  const { path, hash, size } = change;
  if (change.op === 'rename' && wasHere) return { ...shared, op: 'rename', path, oldPath: change.oldPath!, hash, size };
  if (change.op === 'delete') return { ...shared, op: 'delete', path, hash, size };
  return { ...shared, op: 'put', path, hash, size, ...(!wasHere && { oldHash: null }) };
}

/** A piece of the log as a key sees it; small contents come along while there is room. */
export function pieceFor(
  scope: Pick<StoreKey, 'prefixes'>,
  piece: { epoch: string; from: number; through: number; more: boolean },
  changes: readonly Logged[],
): Changes {
  let room = PAGE_LIMIT_BYTES;
  const seen = changes.flatMap((change): Change[] => {
    const view = seenBy(scope, change);
    if (!view) return [];
    const { bytes } = change;
    if (view.op !== 'put' || !bytes || bytes.length > HINT_LIMIT_BYTES || bytes.length > room) return [view];
    room -= bytes.length;
    return [{ ...view, inline: bytes.toString('base64') }];
  });
  return { ...piece, changes: seen };
}

/**
 * Where the store stands.
 * @throws CodedError NOT_FOUND
 */
export async function readStanding(tx: Tx, storeId: string): Promise<Standing> {
  const [row] = await tx.prepared<{ epoch: string; head_seq: string; floor_seq: string }>(
    'select epoch, head_seq, floor_seq from stores where id = $1',
    [storeId],
  );
  if (!row) throw noStore(storeId);
  return { epoch: row.epoch, head: Number(row.head_seq), floor: Number(row.floor_seq) };
}

interface ChangeRow {
  seq: string;
  op: Logged['op'];
  file_id: string;
  path: SyncPath;
  old_path: SyncPath | null;
  content_hash: ContentHash | null;
  old_content_hash: ContentHash | null;
  byte_size: string;
  carried: Carriage | null;
  actor: string;
  device: string | null;
  op_id: string | null;
  at: Date;
  bytes?: Buffer | null;
}

const CHANGE_COLUMNS =
  'seq, op, file_id, path, old_path, content_hash, old_content_hash, byte_size, carried, actor, device, op_id, at';

function loggedOf(row: ChangeRow): Logged {
  return {
    seq: Number(row.seq),
    op: row.op,
    fileId: row.file_id,
    path: row.path,
    oldPath: row.old_path,
    hash: row.content_hash,
    size: Number(row.byte_size),
    oldHash: row.old_content_hash,
    as: row.carried,
    keyId: row.actor,
    device: row.device,
    opId: row.op_id,
    at: row.at,
    bytes: row.bytes ?? null,
  };
}

/**
 * The bytes of a hash in the store $1. Asked for one by one: a join is planned as if there were few of them as long as Postgres has
 * not counted them, as after the first upload, and then goes over all blobs of the store for each row.
 */
const BYTES_OF = (hash: string) => `(select b.bytes from store_blobs b where b.store_id = $1 and b.hash = ${hash})`;

/** The store's changes after `from`, whole: with where it stands, all of one moment, and small contents. */
export async function readChanges(
  tx: Tx,
  storeId: string,
  from: number,
  limit: number,
): Promise<Standing & { through: number; changes: Logged[] }> {
  // One statement sees one moment: the head cannot be older than the changes beside it.
  const rows = await tx.prepared<{ epoch: string; head_seq: string; floor_seq: string } & Partial<ChangeRow>>(
    `select s.epoch, s.head_seq, s.floor_seq, c.*,
            case when c.op in ('create', 'modify') and c.byte_size <= ${HINT_LIMIT_BYTES}
              then ${BYTES_OF('c.content_hash')} end as bytes
     from stores s
     left join lateral (
       select ${CHANGE_COLUMNS} from store_changes
       where store_id = $1 and seq > $2 order by seq limit $3
     ) c on true
     where s.id = $1
     order by c.seq`,
    [storeId, from, limit],
  );
  const [first] = rows;
  if (!first) throw noStore(storeId);
  const changes = rows.flatMap((row) => (row.seq == null ? [] : [loggedOf(row as ChangeRow)]));
  const head = Number(first.head_seq);
  const last = changes.at(-1)?.seq ?? Math.max(head, from);
  return {
    epoch: first.epoch,
    head,
    floor: Number(first.floor_seq),
    through: changes.length < limit ? Math.max(head, last) : last,
    changes,
  };
}

/**
 * A page of the log for a client.
 * @throws CodedError RESYNC_REQUIRED: the cursor is of another epoch, older than the log, or ahead of it
 */
export async function pull(
  tx: Tx,
  scope: Scope,
  cursor: { epoch: string; from: number },
  limit: number,
): Promise<Changes> {
  const { epoch, head, floor, through, changes } = await readChanges(tx, scope.storeId, cursor.from, limit);
  const reason = staleness(cursor, { epoch, head, floor });
  if (reason) throw syncError('RESYNC_REQUIRED', 'The cursor is void: read a snapshot.', { reason, epoch, head });
  return pieceFor(scope, { epoch, from: cursor.from, through, more: through < head }, changes);
}

/** Why a cursor is of no use any more; null when it is. A cursor ahead of the log is one of a log that was set back. */
export function staleness(cursor: { epoch: string; from: number }, standing: Standing): 'EPOCH' | 'FLOOR' | null {
  if (cursor.epoch !== standing.epoch || cursor.from > standing.head) return 'EPOCH';
  return cursor.from < standing.floor ? 'FLOOR' : null;
}

/** The keys of the folders, as conditions compare them; null: no condition. */
function folders({ prefixes }: Scope): string[] | null {
  return prefixes.length === 0 ? null : prefixes.map((folder) => `${pathKey(folder)}/`);
}

const SEEN = (parameter: string, key = 'path_key') =>
  `(${parameter}::text[] is null or exists (select 1 from unnest(${parameter}::text[]) as p (folder) where starts_with(${key}, folder)))`;

/** Some of the live files, and where the store stood before they were read. */
export interface SnapshotPage {
  readonly epoch: string;
  readonly head: number;
  readonly files: readonly FileState[];
  /** Whether there are files after these. */
  readonly more: boolean;
}

/**
 * A page of the live files that the key sees, in the order of their code points. Bytes of small files come with it until
 * PAGE_LIMIT_BYTES are used up; those beyond it are not even read.
 */
export async function snapshot(
  tx: Tx,
  scope: Scope,
  wanted: { prefix?: SyncPath | undefined; after?: string | undefined; inline: boolean },
): Promise<SnapshotPage> {
  // The page is read after the head: what changes in between is in the log behind that head.
  const { epoch, head } = await readStanding(tx, scope.storeId);
  const rows = await tx.prepared<{
    id: string;
    path: SyncPath;
    content_hash: ContentHash;
    byte_size: string;
    seq: string;
    updated_at: Date;
    bytes: Buffer | null;
  }>(
    `select f.id, f.path, f.content_hash, f.byte_size, f.seq, f.updated_at,
            case when $5 and f.carried_so_far <= ${PAGE_LIMIT_BYTES} and f.byte_size <= ${INLINE_LIMIT_BYTES}
              then ${BYTES_OF('f.content_hash')} end as bytes
     from (
       select *, sum(case when byte_size <= ${INLINE_LIMIT_BYTES} then byte_size else 0 end)
                   over (order by path collate "C" rows unbounded preceding) as carried_so_far
       from (
         select * from store_files
         where store_id = $1 and expires_at is null and content_hash is not null
           and ($2::text is null or path collate "C" > $2)
           and ($3::text is null or starts_with(path_key, $3)) and ${SEEN('$4')}
         order by path collate "C" limit ${PAGE_LIMIT + 1}
       ) page
     ) f
     order by f.path collate "C"`,
    [
      scope.storeId,
      wanted.after ?? null,
      wanted.prefix === undefined ? null : `${pathKey(wanted.prefix)}/`,
      folders(scope),
      wanted.inline,
    ],
  );
  const files = rows.slice(0, PAGE_LIMIT).map((row): FileState => {
    const bytes = wanted.inline && row.content_hash === EMPTY_HASH ? Buffer.alloc(0) : row.bytes;
    return {
      fileId: row.id,
      path: row.path,
      hash: row.content_hash,
      size: Number(row.byte_size),
      seq: Number(row.seq),
      at: row.updated_at.toISOString(),
      ...(bytes && { inline: bytes.toString('base64') }),
    };
  });
  return { epoch, head, files, more: rows.length > PAGE_LIMIT };
}

/** What the files that the key sees come to, below the prefix. */
export async function digest(tx: Tx, scope: Scope, prefix: SyncPath | undefined): Promise<DigestAnswer> {
  const seen = folders(scope);
  const below = prefix === undefined ? '' : `${pathKey(prefix)}/`;
  const depth = prefix === undefined ? 1 : prefix.split('/').length + 1;
  const rows = await tx.prepared<{
    epoch: string;
    head_seq: string;
    folder: string | null;
    digest: string | null;
    count: number;
  }>(
    `select s.epoch, s.head_seq, g.folder, g.digest, coalesce(g.count, 0)::int as count
     from stores s
     left join lateral (
       select case when split_part(path, '/', $4 + 1) = '' then null else split_part(path, '/', $4) end as folder,
              bit_xor(digest) as digest, count(*) as count
       from store_files
       where store_id = $1 and expires_at is null and content_hash is not null
         and starts_with(path_key, $2) and ${SEEN('$3')}
       group by 1
     ) g on true
     where s.id = $1`,
    [scope.storeId, below, seen, depth],
  );
  const [first] = rows;
  if (!first) throw noStore(scope.storeId);
  const groups = rows.filter(({ digest: sum }) => sum !== null);
  const countOf = (group: { digest: string | null; count: number } | undefined): DigestCount => ({
    digest: digestFrom(group?.digest ?? null),
    count: group?.count ?? 0,
  });
  const named = groups.filter(({ folder }) => folder !== null);
  const all = groups.reduce((sum, group) => sum ^ BigInt(group.digest!), 0n);
  return {
    epoch: first.epoch,
    seq: Number(first.head_seq),
    digest: digestOf([BigInt.asUintN(64, all)]),
    count: groups.reduce((sum, { count }) => sum + count, 0),
    files: countOf(groups.find(({ folder }) => folder === null)),
    folders:
      named.length > DIGEST_FOLDERS ? null : Object.fromEntries(named.map((group) => [group.folder!, countOf(group)])),
  };
}

/** What `ready` tells of the store: of one moment, and without a look at each file where the key sees all of them. */
export async function readSummary(
  tx: Tx,
  scope: Scope,
): Promise<Standing & DigestCount & { usedBytes: number; quotaBytes: number | null }> {
  const [row] = await tx.prepared<{
    epoch: string;
    head_seq: string;
    floor_seq: string;
    digest: string;
    file_count: string;
    bytes: string;
    quota_bytes: string | null;
  }>('select epoch, head_seq, floor_seq, digest, file_count, bytes, quota_bytes from stores where id = $1', [
    scope.storeId,
  ]);
  if (!row) throw noStore(scope.storeId);
  const standing = { epoch: row.epoch, head: Number(row.head_seq), floor: Number(row.floor_seq) };
  const store = { usedBytes: Number(row.bytes), quotaBytes: row.quota_bytes === null ? null : Number(row.quota_bytes) };
  if (scope.prefixes.length === 0) {
    return { ...standing, ...store, digest: digestFrom(row.digest), count: Number(row.file_count) };
  }
  const seen = await digest(tx, scope, undefined);
  return { ...standing, ...store, head: seen.seq, digest: seen.digest, count: seen.count };
}

/**
 * The history of a file, newest first, as far as the key sees it; reaches back as long as the log.
 * @throws CodedError NOT_FOUND
 */
export async function versions(tx: Tx, scope: Scope, fileId: string, limit: number, before: number | null) {
  const rows = await tx.query<ChangeRow>(
    `select ${CHANGE_COLUMNS} from store_changes
     where store_id = $1 and file_id = $2 and ($3::bigint is null or seq < $3) order by seq desc limit $4`,
    [scope.storeId, fileId, before, limit],
  );
  const seen = rows.flatMap((row): Version[] => {
    const view = seenBy(scope, loggedOf(row));
    return view ? [view] : [];
  });
  if (seen.length === 0 && before === null) throw syncError('NOT_FOUND', 'The store has no history of such a file.');
  return { versions: seen, next: rows.length < limit ? null : Number(rows.at(-1)!.seq) };
}

/** The deleted files that the key sees and whose bytes are still there, newest first. */
export async function trash(tx: Tx, scope: Scope, limit: number, before: number | null) {
  const rows = await tx.query<{
    id: string;
    path: SyncPath;
    content_hash: ContentHash;
    byte_size: string;
    seq: string;
    updated_at: Date;
    expires_at: Date;
  }>(
    `select id, path, content_hash, byte_size, seq, updated_at, expires_at from store_files
     where store_id = $1 and expires_at > now() and content_hash is not null and ${SEEN('$2')}
       and ($3::bigint is null or seq < $3)
     order by seq desc limit $4`,
    [scope.storeId, folders(scope), before, limit],
  );
  const files = rows.map((row): TrashedFile => ({
    fileId: row.id,
    path: row.path,
    hash: row.content_hash,
    size: Number(row.byte_size),
    seq: Number(row.seq),
    deletedAt: row.updated_at.toISOString(),
    expiresAt: row.expires_at.toISOString(),
  }));
  return { files, next: rows.length < limit ? null : files.at(-1)!.seq };
}

/** The conflict copies among the live files that the key sees, newest first. */
export async function conflicts(tx: Tx, scope: Scope, limit: number, before: number | null): Promise<Conflicts> {
  const rows = await tx.query<{
    id: string;
    path: SyncPath;
    content_hash: ContentHash;
    byte_size: string;
    seq: string;
    updated_at: Date;
  }>(
    `select id, path, content_hash, byte_size, seq, updated_at from store_files
     where store_id = $1 and expires_at is null and content_hash is not null and path ~ $2 and ${SEEN('$3')}
       and ($4::bigint is null or seq < $4)
     order by seq desc limit $5`,
    [scope.storeId, CONFLICT_COPY, folders(scope), before, limit],
  );
  const found = rows.map((row): Conflict => ({
    fileId: row.id,
    path: row.path,
    ...conflictOf(row.path)!,
    hash: row.content_hash,
    size: Number(row.byte_size),
    seq: Number(row.seq),
    at: row.updated_at.toISOString(),
  }));
  return { conflicts: found, next: rows.length < limit ? null : found.at(-1)!.seq };
}

/**
 * What a restore brings back: bytes of the file's history, and where to.
 * @throws CodedError NOT_FOUND
 */
export async function restorable(
  tx: Tx,
  scope: Scope,
  fileId: string,
  hash: ContentHash | undefined,
): Promise<{ path: SyncPath; hash: ContentHash; size: number }> {
  const rows = (
    await tx.query<ChangeRow>(
      `select ${CHANGE_COLUMNS} from store_changes where store_id = $1 and file_id = $2 order by seq desc`,
      [scope.storeId, fileId],
    )
  )
    .map(loggedOf)
    .filter((change) => seenBy(scope, change) !== null);
  const [last] = rows;
  const wanted = hash ?? last?.hash ?? last?.oldHash;
  const known = rows.some((change) => change.hash === wanted || change.oldHash === wanted);
  if (!last || !wanted || !known) throw syncError('NOT_FOUND', 'The history of the file has no such version.');
  const [blob] = await tx.query<{ size: string }>('select size from store_blobs where store_id = $1 and hash = $2', [
    scope.storeId,
    wanted,
  ]);
  if (!blob) throw syncError('NOT_FOUND', 'The bytes of this version were forgotten.');
  return { path: last.path, hash: wanted, size: Number(blob.size) };
}
