import { createHash } from 'node:crypto';
import { type TenantId, uuidv7 } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';
import { type Broadcast, fileKind, pathKey, SERVER_EVENTS, type SyncPath, syncError } from '@atomo-cc/sync-protocol';
import { FILE_COLUMNS, type FileRow, viewOf } from './file-rows.js';

/** How long a deleted file is remembered: a device that was away longer may bring it back. */
const TOMBSTONE_DAYS = 30;
const EMPTY_HASH = hashOf('');

/** What a client wants changed. `hash` and `size` are worked out before the store is locked. */
export type Change =
  | {
      readonly kind: 'put';
      readonly path: SyncPath;
      readonly content: string;
      readonly hash: string;
      readonly size: number;
      /** What happens when the file is there: it is overwritten, left as it is, or the change is refused. */
      readonly existing: 'overwrite' | 'keep' | 'refuse';
    }
  | { readonly kind: 'delete'; readonly path: SyncPath }
  | { readonly kind: 'delete-all' }
  | { readonly kind: 'rename'; readonly from: SyncPath; readonly to: SyncPath };

/** What became of a change that was not refused. */
export interface Outcome {
  /** The position of the change; of several, the last one; of none, where the store stood. */
  readonly seq: number;
  /** What the other clients must hear, in order. Empty: nothing changed. */
  readonly broadcasts: readonly Broadcast[];
  /** The file as it is now; absent after a deletion. */
  readonly file?: ReturnType<typeof viewOf>;
}

/** A store whose lock this transaction holds; `head` is the position of its last change and moves with every write. */
export interface LockedStore {
  readonly tenantId: TenantId;
  readonly id: string;
  head: number;
}

/** `sha256:` and 64 hex digits: the hash of protocol 1, over the string as it is carried. */
export function hashOf(content: string): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

/** A change that writes `content` to `path`. */
export function put(path: SyncPath, content: string, existing: 'overwrite' | 'keep' | 'refuse'): Change {
  return { kind: 'put', path, content, hash: hashOf(content), size: Buffer.byteLength(content), existing };
}

/**
 * Carries out one change: file row, log row and the store's position, in the caller's transaction.
 * @throws CodedError CONFLICT, before anything was written: the transaction can go on
 */
export async function carryOut(tx: Tx, store: LockedStore, actor: string, change: Change): Promise<Outcome> {
  switch (change.kind) {
    case 'put':
      return putFile(tx, store, actor, change);
    case 'delete':
      return deleteFiles(tx, store, actor, change.path);
    case 'delete-all':
      return deleteFiles(tx, store, actor, null);
    case 'rename':
      return renameFile(tx, store, actor, change.from, change.to);
  }
}

type Old = { old_path: string | null; old_live: boolean | null };

async function putFile(tx: Tx, store: LockedStore, actor: string, change: Change & { kind: 'put' }): Promise<Outcome> {
  const { path, content, hash, size } = change;
  const { extension, isBinary } = fileKind(path);
  const seq = store.head + 1;
  const [row] = await tx.query<Old & FileRow & { was_put: boolean }>(
    `with old as materialized (
       select ${FILE_COLUMNS}, expires_at is null as live from store_files where store_id = $2 and path_key = $4
     ), put as (
       insert into store_files as f
         (id, tenant_id, store_id, path, path_key, content, hash, size, is_binary, extension, seq)
       select $12, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
       where not exists (select 1 from old where live and (path <> $3 or $13))
       on conflict (tenant_id, store_id, path_key) do update
         set path = excluded.path, content = excluded.content, hash = excluded.hash, size = excluded.size,
             is_binary = excluded.is_binary, extension = excluded.extension, seq = excluded.seq,
             updated_at = excluded.updated_at, expires_at = null
       returning f.*
     ), logged as (
       insert into store_changes (tenant_id, store_id, seq, op, file_id, path, hash, old_hash, size, actor, at)
       select $1, $2, $10, case when old.live then 'modify' else 'create' end, put.id, $3, $6,
              case when old.live then old.hash end, $7, $11, put.updated_at
       from put left join old on true
     ), moved as (
       update stores
       set head_seq = $10,
           file_count = file_count + case when old.live then 0 else 1 end,
           total_bytes = total_bytes + $7 - coalesce(old.size, 0)
       from put left join old on true
       where stores.id = $2
     )
     select old.path as old_path, old.live as old_live, put.id is not null as was_put,
            ${FILE_COLUMNS.split(', ').map(pick).join(', ')}
     from (select 1) as one left join old on true left join put on true`,
    [
      store.tenantId,
      store.id,
      path,
      pathKey(path),
      content,
      hash,
      size,
      isBinary,
      extension,
      seq,
      actor,
      uuidv7(),
      change.existing !== 'overwrite',
    ],
  );
  const { old_path: oldPath, old_live: wasLive, was_put: wasPut, ...stored } = row!;
  if (!wasPut) {
    if (oldPath !== path) throw collision(path, oldPath!);
    if (change.existing === 'refuse')
      throw syncError('CONFLICT', `File already exists: ${path}`, { existingPath: path });
    return { seq: store.head, broadcasts: [], file: viewOf(stored) };
  }
  store.head = seq;
  const file = viewOf(stored);
  const state = { path, content, hash, size, isBinary, extension };
  const broadcast: Broadcast = wasLive
    ? { event: SERVER_EVENTS.modified, payload: { ...state, updatedAt: file.updatedAt, seq } }
    : { event: SERVER_EVENTS.created, payload: { ...state, createdAt: file.createdAt, seq } };
  return { seq, broadcasts: [broadcast], file };
}

/** The row after the statement: the one that was put, else the one that was there. */
function pick(column: string): string {
  return `case when put.id is null then old.${column} else put.${column} end as ${column}`;
}

async function deleteFiles(tx: Tx, store: LockedStore, actor: string, path: SyncPath | null): Promise<Outcome> {
  const broadcasts = await bury(tx, store, actor, path);
  // Tombstones whose time is over go by the way of deletions, which are what makes them.
  await tx.execute('delete from store_files where store_id = $1 and expires_at < now()', [store.id]);
  return { seq: store.head, broadcasts };
}

/** Turns live files into tombstones, each with a change of its own: the one at `path`, or all of them in order of path. */
async function bury(tx: Tx, store: LockedStore, actor: string, path: SyncPath | null): Promise<Broadcast[]> {
  const rows = await tx.query<{ path: string; seq: string; updated_at: Date }>(
    `with old as materialized (
       select path_key, hash, size, row_number() over (order by path collate "C") as place
       from store_files
       where store_id = $2 and expires_at is null and ($5::text is null or (path_key = $6 and path = $5))
     ), gone as (
       update store_files as f
       set content = '', hash = $7, size = 0, seq = $3 + old.place, updated_at = clock_timestamp(),
           expires_at = clock_timestamp() + $8 * interval '1 day'
       from old
       where f.store_id = $2 and f.path_key = old.path_key
       returning f.id, f.path, f.seq, f.updated_at, old.hash as old_hash
     ), logged as (
       insert into store_changes (tenant_id, store_id, seq, op, file_id, path, old_hash, size, actor, at)
       select $1, $2, seq, 'delete', id, path, old_hash, 0, $4, updated_at from gone
     ), moved as (
       update stores
       set head_seq = $3 + dead.count, file_count = file_count - dead.count, total_bytes = total_bytes - dead.size
       from (select count(*) as count, coalesce(sum(size), 0) as size from old) as dead
       where stores.id = $2 and dead.count > 0
     )
     select path, seq, updated_at from gone order by seq`,
    [store.tenantId, store.id, store.head, actor, path, path && pathKey(path), EMPTY_HASH, TOMBSTONE_DAYS],
  );
  store.head += rows.length;
  return rows.map((row) => ({
    event: SERVER_EVENTS.deleted,
    payload: { path: row.path, deletedAt: row.updated_at.toISOString(), seq: Number(row.seq) },
  }));
}

/**
 * Moves a file and leaves a tombstone at its old path, or an offline client would bring the old path back. Protocol 1 makes
 * an empty file of a missing source; here only where that destroys nothing.
 */
async function renameFile(tx: Tx, store: LockedStore, actor: string, from: SyncPath, to: SyncPath): Promise<Outcome> {
  const [fromKey, toKey] = [pathKey(from), pathKey(to)];
  const rows = await tx.query<FileRow & { path_key: string; content: string }>(
    `select path_key, ${FILE_COLUMNS}, content from store_files where store_id = $1 and path_key = any($2)`,
    [store.id, [fromKey, toKey]],
  );
  const live = rows.filter((row) => row.expires_at === null);
  const source = live.find((row) => row.path === from);
  const target = live.find((row) => row.path_key === toKey);
  if (target && target !== source) throw collision(to, target.path);
  if (!source) return carryOut(tx, store, actor, put(to, '', 'keep'));
  if (from === to) return { seq: store.head, broadcasts: [], file: viewOf(source) };

  const seq = store.head + 1;
  const { extension, isBinary } = fileKind(to);
  // A tombstone in the way, which is never the source's own row: the source is live.
  await tx.execute('delete from store_files where store_id = $1 and path_key = $2 and expires_at is not null', [
    store.id,
    toKey,
  ]);
  const [moved] = await tx.query<FileRow>(
    `with moved as (
       update store_files
       set path = $4, path_key = $5, is_binary = $6, extension = $7, seq = $8, updated_at = clock_timestamp()
       where store_id = $2 and path_key = $3
       returning *
     ), logged as (
       insert into store_changes (tenant_id, store_id, seq, op, file_id, path, old_path, hash, old_hash, size, actor, at)
       select $1, $2, $8, 'rename', id, $4, $9, hash, hash, size, $10, updated_at from moved
     ), head as (
       update stores set head_seq = $8 where id = $2
     )
     select ${FILE_COLUMNS} from moved`,
    [store.tenantId, store.id, fromKey, to, toKey, isBinary, extension, seq, from, actor],
  );
  store.head = seq;
  // A rename that changes only the case has one key: there is no second row to leave behind.
  if (fromKey !== toKey) await leaveTombstone(tx, store, from, source);
  const file = viewOf(moved!);
  const { hash, size, updatedAt } = file;
  const payload = {
    oldPath: from,
    newPath: to,
    content: source.content,
    hash,
    size,
    isBinary,
    extension,
    updatedAt,
    seq,
  };
  return { seq, broadcasts: [{ event: SERVER_EVENTS.renamed, payload }], file };
}

async function leaveTombstone(tx: Tx, store: LockedStore, path: SyncPath, was: FileRow): Promise<void> {
  await tx.execute(
    `insert into store_files
       (id, tenant_id, store_id, path, path_key, content, hash, size, is_binary, extension, seq, expires_at)
     values ($1, $2, $3, $4, $5, '', $6, 0, $7, $8, $9, clock_timestamp() + $10 * interval '1 day')`,
    [
      uuidv7(),
      store.tenantId,
      store.id,
      path,
      pathKey(path),
      EMPTY_HASH,
      was.is_binary,
      was.extension,
      store.head,
      TOMBSTONE_DAYS,
    ],
  );
}

function collision(path: SyncPath, existingPath: string) {
  const reason =
    path === existingPath
      ? `File already exists: ${path}`
      : `${path} cannot stand beside ${existingPath}: many devices would take them for one file. Rename one of them.`;
  return syncError('CONFLICT', reason, { existingPath });
}
