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
 * What a batch comes to, in one statement: each of its own costs the client, the line and the server as much again as its rows.
 * The tenant is $1, the store $2, the time $3; then come the columns of contents, files, changes, the store and answers.
 */
const WRITE = `
  with contents as (
    insert into store_blobs (tenant_id, store_id, hash, size, bytes)
    select $1, $2, hash, length(bytes), bytes from unnest($4::text[], $5::bytea[]) as n (hash, bytes)
    on conflict do nothing
  ), files as (
    insert into store_files
      (tenant_id, store_id, id, path, path_key, hash, size, carried, is_binary, extension, content_hash, byte_size, digest,
       seq, created_at, updated_at, expires_at)
    select $1, $2, id, path, path_key, hash, size, carried, is_binary, extension, content_hash, byte_size, digest,
           seq, created_at, updated_at, case when is_live then null else updated_at + $21 * interval '1 day' end
    from unnest($6::text[]::uuid[], $7::text[], $8::text[], $9::text[], $10::text[]::bigint[], $11::text[], $12::text[]::boolean[],
                $13::text[], $14::text[], $15::text[]::bigint[], $16::text[]::bigint[], $17::text[]::bigint[],
                $18::timestamptz[], $19::timestamptz[], $20::text[]::boolean[])
      as n (id, path, path_key, hash, size, carried, is_binary, extension, content_hash, byte_size, digest, seq,
            created_at, updated_at, is_live)
    on conflict (tenant_id, store_id, path_key) do update
      set id = excluded.id, path = excluded.path, hash = excluded.hash, size = excluded.size, carried = excluded.carried,
          is_binary = excluded.is_binary, extension = excluded.extension, content_hash = excluded.content_hash,
          byte_size = excluded.byte_size, digest = excluded.digest, seq = excluded.seq, created_at = excluded.created_at,
          updated_at = excluded.updated_at, expires_at = excluded.expires_at
  ), changes as (
    insert into store_changes
      (tenant_id, store_id, seq, op, file_id, path, path_key, old_path, content_hash, old_content_hash, byte_size, carried,
       actor, device, op_id, at)
    select $1, $2, n.*, $3
    from unnest($22::text[]::bigint[], $23::text[], $24::text[]::uuid[], $25::text[], $26::text[], $27::text[], $28::text[],
                $29::text[], $30::text[]::bigint[], $31::text[], $32::text[]::uuid[], $33::text[], $34::text[]::uuid[]) as n
  ), answers as (
    insert into store_ops (tenant_id, store_id, op_id, fingerprint, answer)
    select $1, $2, * from unnest($40::text[]::uuid[], $41::text[], $42::text[]::jsonb[])
  )
  update stores set head_seq = $35, file_count = file_count + $36, total_bytes = total_bytes + $37, bytes = bytes + $38,
                    digest = digest # $39, updated_at = $3
  where tenant_id = $1 and id = $2`;

/**
 * Writes what was decided: one statement, however many changes, which the commit waits for.
 * @param retentionDays how long a tombstone stays
 */
export function writeWorkspace(
  tx: Tx,
  workspace: Workspace,
  answers: readonly Answered[],
  retentionDays: number,
): void {
  const { tenantId, storeId, at, changes } = workspace;
  writePartLists(tx, workspace);
  if (changes.length > 0) {
    tx.send(WRITE, [
      tenantId,
      storeId,
      at,
      ...contentColumns(workspace),
      ...fileColumns(workspace),
      retentionDays,
      ...changeColumns(changes),
      ...storeColumns(workspace),
      ...answerColumns(answers),
    ]);
  } else if (answers.length > 0) {
    tx.send(
      `insert into store_ops (tenant_id, store_id, op_id, fingerprint, answer)
       select $1, $2, * from unnest($3::text[]::uuid[], $4::text[], $5::text[]::jsonb[])`,
      [tenantId, storeId, ...answerColumns(answers)],
    );
  }
}

/** Files of several parts, whose bytes are there already. */
function writePartLists(tx: Tx, { tenantId, storeId, contents }: Workspace): void {
  for (const [hash, content] of contents) {
    if (!('parts' in content)) continue;
    tx.send(
      `insert into store_blobs (tenant_id, store_id, hash, size, parts) values ($1, $2, $3, $4, $5::text[])
       on conflict do nothing`,
      [tenantId, storeId, hash, content.size, textArray(content.parts)],
    );
  }
}

function contentColumns({ contents }: Workspace): unknown[] {
  const whole = [...contents].flatMap(([hash, content]) =>
    'bytes' in content ? [{ hash, bytes: content.bytes }] : [],
  );
  return [textArray(whole.map(({ hash }) => hash)), byteaArray(whole.map(({ bytes }) => bytes))];
}

function fileColumns({ files, dirty }: Workspace): unknown[] {
  const rows = [...dirty].map((key) => files.get(key)!);
  const kinds = rows.map(({ path }) => fileKind(path));
  return [
    textArray(rows.map(({ id }) => id)),
    textArray(rows.map(({ path }) => path)),
    textArray(rows.map(({ key }) => key)),
    textArray(rows.map(({ carried }) => carried?.hash ?? null)),
    numbers(rows.map(({ carried, size }) => carried?.size ?? size)),
    textArray(rows.map(({ carried }) => carried?.as ?? null)),
    textArray(kinds.map(({ isBinary }) => String(isBinary))),
    textArray(kinds.map(({ extension }) => extension)),
    textArray(rows.map(({ hash }) => hash)),
    numbers(rows.map(({ size }) => size)),
    textArray(rows.map(({ path, hash }) => (hash ? asSigned(digestTerm(path, hash)) : '0'))),
    numbers(rows.map(({ seq }) => seq)),
    timestampArray(rows.map(({ createdAt }) => createdAt)),
    timestampArray(rows.map(({ updatedAt }) => updatedAt)),
    textArray(rows.map(({ isLive }) => String(isLive))),
  ];
}

function changeColumns(changes: readonly Logged[]): unknown[] {
  const column = (of: (change: Logged) => string | null) => textArray(changes.map(of));
  return [
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
  ];
}

function storeColumns({ head, grown }: Workspace): unknown[] {
  return [head, grown.files, grown.carriedBytes, grown.bytes, asSigned(grown.digest)];
}

function answerColumns(answers: readonly Answered[]): unknown[] {
  return [
    textArray(answers.map(({ opId }) => opId)),
    textArray(answers.map(({ fingerprint }) => fingerprint)),
    textArray(answers.map(({ answer }) => JSON.stringify(answer))),
  ];
}
