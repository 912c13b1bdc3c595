import { nameApiKeys } from '@atomo-cc/access';
import type { Tx } from '@atomo-cc/platform/postgres';
import type { AuditEntry, AuditPage, ContentHash, SyncPath } from '@atomo-cc/sync-protocol';

/** Which changes are asked for; what is null does not matter. */
export interface AuditQuestion {
  readonly path: SyncPath | null;
  readonly keyId: string | null;
  readonly device: string | null;
  readonly before: number | null;
  readonly limit: number;
}

interface Row {
  seq: string;
  at: Date;
  op: AuditEntry['op'];
  file_id: string;
  path: SyncPath;
  old_path: SyncPath | null;
  content_hash: ContentHash | null;
  old_content_hash: ContentHash | null;
  byte_size: string;
  actor: string;
  device: string | null;
  device_name: string | null;
  op_id: string | null;
}

/** Who changed what, when and from which device: the log with names, newest first. Goes back as far as the log. */
export async function audit(tx: Tx, storeId: string, asked: AuditQuestion): Promise<AuditPage> {
  const rows = await tx.query<Row>(
    `select c.seq, c.at, c.op, c.file_id, c.path, c.old_path, c.content_hash, c.old_content_hash, c.byte_size, c.actor,
            c.device, d.name as device_name, c.op_id
     from store_changes c
     left join store_devices d on d.store_id = c.store_id and d.id = c.device
     where c.store_id = $1 and ($2::bigint is null or c.seq < $2) and ($3::text is null or $3 in (c.path, c.old_path))
       and ($4::uuid is null or c.actor = $4) and ($5::text is null or c.device = $5)
     order by c.seq desc limit $6`,
    [storeId, asked.before, asked.path, asked.keyId, asked.device, asked.limit],
  );
  const keys = await nameApiKeys(
    tx,
    rows.map(({ actor }) => actor),
  );
  const entries = rows.map((row): AuditEntry => {
    const key = keys.get(row.actor);
    return {
      seq: Number(row.seq),
      at: row.at.toISOString(),
      op: row.op,
      fileId: row.file_id,
      path: row.path,
      ...(row.old_path !== null && { oldPath: row.old_path }),
      hash: row.content_hash,
      oldHash: row.old_content_hash,
      size: Number(row.byte_size),
      key: { id: row.actor, name: key?.name ?? null, prefix: key?.prefix ?? null },
      device: row.device === null ? null : { id: row.device, name: row.device_name },
      ...(row.op_id !== null && { opId: row.op_id }),
    };
  });
  return { entries, next: rows.length < asked.limit ? null : entries.at(-1)!.seq };
}
