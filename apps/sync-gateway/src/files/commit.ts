import { byteaArray, textArray, timestampArray, type Tx } from '@atomo-cc/platform/postgres';
import type { TenantId } from '@atomo-cc/kernel';
import {
  type ContentHash,
  digestTerm,
  fileKind,
  type OpDone,
  type PathKey,
  pathKey,
  type SyncPath,
} from '@atomo-cc/sync-protocol';
import type { Carriage } from '../contents/index.js';
import { asSigned, type Logged } from '../log/index.js';
import { noStore } from '../stores/index.js';
import { type FileNow, type Intent, Workspace } from './workspace.js';

/** What a batch of intents needs to know of the store. */
interface Needed {
  readonly keys: readonly PathKey[];
  /** Folders of which every live file is needed; '' is the store. */
  readonly folders: readonly string[];
}

/** The answer to an operation that was carried out before, with what it was about. */
export interface Answered {
  readonly opId: string;
  readonly fingerprint: string;
  readonly answer: OpDone;
}

interface Row {
  id: string;
  path: SyncPath;
  path_key: PathKey;
  content_hash: ContentHash | null;
  byte_size: string;
  hash: string | null;
  size: string;
  carried: Carriage | null;
  seq: string;
  created_at: Date;
  updated_at: Date;
  is_live: boolean;
}

function neededBy(intents: readonly Intent[]): Needed {
  const keys = new Set<PathKey>();
  const folders = new Set<string>();
  const folderOf = (folder: SyncPath | null) => (folder === null ? '' : `${pathKey(folder)}/`);
  for (const intent of intents) {
    if (intent.kind === 'put' || intent.kind === 'delete') keys.add(pathKey(intent.path));
    else if (intent.kind === 'delete-folder') folders.add(folderOf(intent.folder));
    else if (intent.kind === 'rename') keys.add(pathKey(intent.from)).add(pathKey(intent.to));
    else folders.add(folderOf(intent.from)).add(folderOf(intent.to));
  }
  return { keys: [...keys], folders: [...folders] };
}

const COLUMNS =
  'id, path, path_key, content_hash, byte_size, hash, size, carried, seq, created_at, updated_at, expires_at is null as is_live';

/**
 * Locks the store until the transaction ends, and reads what the intents touch. Every write of the store goes through here,
 * so inside nobody else writes it. The statements are sent together; each sees what is there once the lock is held.
 * @param quota bytes that a store may hold which has no quota of its own
 * @throws CodedError NOT_FOUND: the store is gone
 */
export async function openWorkspace(
  tx: Tx,
  tenantId: TenantId,
  storeId: string,
  intents: readonly Intent[],
  opIds: readonly string[],
  quota: number,
): Promise<{ workspace: Workspace; answered: Map<string, Answered> }> {
  const { keys, folders } = neededBy(intents);
  const locked = tx.prepared<{ head_seq: string; bytes: string; quota_bytes: string | null; at: Date }>(
    `select head_seq, bytes, quota_bytes, clock_timestamp() as at from stores where id = $1 for no key update`,
    [storeId],
  );
  const byKey = tx.prepared<Row>(
    `select ${COLUMNS} from store_files where store_id = $1 and path_key = any($2::text[])`,
    [storeId, textArray(keys)],
  );
  const byFolder =
    folders.length === 0
      ? Promise.resolve([])
      : tx.prepared<Row>(
          `select ${COLUMNS} from store_files
           where store_id = $1 and exists (select 1 from unnest($2::text[]) as f (folder) where starts_with(path_key, folder))`,
          [storeId, textArray(folders)],
        );
  const before =
    opIds.length === 0
      ? Promise.resolve([])
      : tx.prepared<{ op_id: string; fingerprint: string; answer: OpDone }>(
          'select op_id, fingerprint, answer from store_ops where store_id = $1 and op_id = any($2::text[]::uuid[])',
          [storeId, textArray(opIds)],
        );
  const [[store], ...found] = await Promise.all([locked, byKey, byFolder]);
  if (!store) throw noStore(storeId);
  const files = new Map(found.flat().map((row) => [row.path_key, fileOf(row)]));
  const room = Number(store.quota_bytes ?? quota) - Number(store.bytes);
  const answered = (await before).map(({ op_id: opId, ...rest }): [string, Answered] => [opId, { opId, ...rest }]);
  return {
    workspace: new Workspace(tenantId, storeId, Number(store.head_seq), store.at, room, files),
    answered: new Map(answered),
  };
}

function fileOf(row: Row): FileNow {
  return {
    id: row.id,
    path: row.path,
    key: row.path_key,
    isLive: row.is_live,
    hash: row.content_hash,
    size: Number(row.byte_size),
    carried: row.carried && row.hash !== null ? { as: row.carried, hash: row.hash, size: Number(row.size) } : null,
    seq: Number(row.seq),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

const numbers = (values: readonly (number | null)[]) => textArray(values.map((value) => value?.toString() ?? null));

/**
 * Writes what was decided: a few statements, however many changes, which the commit waits for.
 * @param retentionDays how long a tombstone stays
 */
export function writeWorkspace(
  tx: Tx,
  workspace: Workspace,
  answers: readonly Answered[],
  retentionDays: number,
): void {
  const { tenantId, storeId, changes, grown } = workspace;
  if (workspace.contents.size > 0) writeContents(tx, workspace);
  if (changes.length > 0) {
    writeFiles(tx, workspace, retentionDays);
    writeChanges(tx, workspace);
    tx.send(
      `update stores set head_seq = $2, file_count = file_count + $3, total_bytes = total_bytes + $4, bytes = bytes + $5,
                         digest = digest # $6, updated_at = $7
       where id = $1`,
      [storeId, workspace.head, grown.files, grown.carriedBytes, grown.bytes, asSigned(grown.digest), workspace.at],
    );
  }
  if (answers.length > 0) {
    tx.send(
      `insert into store_ops (tenant_id, store_id, op_id, fingerprint, answer)
       select $1, $2, * from unnest($3::text[]::uuid[], $4::text[], $5::text[]::jsonb[])`,
      [
        tenantId,
        storeId,
        textArray(answers.map(({ opId }) => opId)),
        textArray(answers.map(({ fingerprint }) => fingerprint)),
        textArray(answers.map(({ answer }) => JSON.stringify(answer))),
      ],
    );
  }
}

function writeContents(tx: Tx, { tenantId, storeId, contents }: Workspace): void {
  const whole = [...contents].filter(([, content]) => 'bytes' in content);
  if (whole.length > 0) {
    tx.send(
      `insert into store_blobs (tenant_id, store_id, hash, size, bytes)
       select $1, $2, hash, length(bytes), bytes from unnest($3::text[], $4::bytea[]) as b (hash, bytes)
       on conflict do nothing`,
      [
        tenantId,
        storeId,
        textArray(whole.map(([hash]) => hash)),
        byteaArray(whole.map(([, content]) => (content as { bytes: Buffer }).bytes)),
      ],
    );
  }
  for (const [hash, content] of contents) {
    if (!('parts' in content)) continue;
    tx.send(
      `insert into store_blobs (tenant_id, store_id, hash, size, parts) values ($1, $2, $3, $4, $5::text[])
       on conflict do nothing`,
      [tenantId, storeId, hash, content.size, textArray(content.parts)],
    );
  }
}

function writeFiles(tx: Tx, { tenantId, storeId, files, dirty }: Workspace, retentionDays: number): void {
  const rows = [...dirty].map((key) => files.get(key)!);
  tx.send(
    `insert into store_files as f
       (tenant_id, store_id, id, path, path_key, hash, size, carried, is_binary, extension, content_hash, byte_size, digest,
        seq, created_at, updated_at, expires_at)
     select $1, $2, id, path, path_key, hash, size, carried, is_binary, extension, content_hash, byte_size, digest,
            seq, created_at, updated_at, case when is_live then null else updated_at + $18 * interval '1 day' end
     from unnest($3::text[]::uuid[], $4::text[], $5::text[], $6::text[], $7::text[]::bigint[], $8::text[], $9::text[]::boolean[],
                 $10::text[], $11::text[], $12::text[]::bigint[], $13::text[]::bigint[], $14::text[]::bigint[],
                 $15::timestamptz[], $16::timestamptz[], $17::text[]::boolean[])
       as n (id, path, path_key, hash, size, carried, is_binary, extension, content_hash, byte_size, digest, seq,
             created_at, updated_at, is_live)
     on conflict (tenant_id, store_id, path_key) do update
       set id = excluded.id, path = excluded.path, hash = excluded.hash, size = excluded.size, carried = excluded.carried,
           is_binary = excluded.is_binary, extension = excluded.extension, content_hash = excluded.content_hash,
           byte_size = excluded.byte_size, digest = excluded.digest, seq = excluded.seq, created_at = excluded.created_at,
           updated_at = excluded.updated_at, expires_at = excluded.expires_at`,
    [
      tenantId,
      storeId,
      textArray(rows.map(({ id }) => id)),
      textArray(rows.map(({ path }) => path)),
      textArray(rows.map(({ key }) => key)),
      textArray(rows.map(({ carried }) => carried?.hash ?? null)),
      numbers(rows.map(({ carried, size }) => carried?.size ?? size)),
      textArray(rows.map(({ carried }) => carried?.as ?? null)),
      textArray(rows.map(({ path }) => String(fileKind(path).isBinary))),
      textArray(rows.map(({ path }) => fileKind(path).extension)),
      textArray(rows.map(({ hash }) => hash)),
      numbers(rows.map(({ size }) => size)),
      textArray(rows.map(({ path, hash }) => (hash ? asSigned(digestTerm(path, hash)) : '0'))),
      numbers(rows.map(({ seq }) => seq)),
      timestampArray(rows.map(({ createdAt }) => createdAt)),
      timestampArray(rows.map(({ updatedAt }) => updatedAt)),
      textArray(rows.map(({ isLive }) => String(isLive))),
      retentionDays,
    ],
  );
}

function writeChanges(tx: Tx, { tenantId, storeId, changes, at }: Workspace): void {
  const column = (of: (change: Logged) => string | null) => textArray(changes.map(of));
  tx.send(
    `insert into store_changes
       (tenant_id, store_id, seq, op, file_id, path, path_key, old_path, content_hash, old_content_hash, byte_size, carried,
        actor, device, op_id, at)
     select $1, $2, n.*, $16::timestamptz
     from unnest($3::text[]::bigint[], $4::text[], $5::text[]::uuid[], $6::text[], $7::text[], $8::text[], $9::text[],
                 $10::text[], $11::text[]::bigint[], $12::text[], $13::text[]::uuid[], $14::text[], $15::text[]::uuid[]) as n`,
    [
      tenantId,
      storeId,
      column(({ seq }) => String(seq)),
      column(({ op }) => op),
      column(({ fileId }) => fileId),
      column(({ path }) => path),
      column(({ path }) => pathKey(path)),
      column(({ oldPath }) => oldPath),
      column(({ hash }) => hash),
      column(({ oldHash }) => oldHash),
      column(({ size }) => String(size)),
      column(({ as }) => as),
      column(({ keyId }) => keyId),
      column(({ device }) => device),
      column(({ opId }) => opId),
      at,
    ],
  );
}
