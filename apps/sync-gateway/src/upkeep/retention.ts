import type { BeforeApplicationShutdown, OnApplicationBootstrap } from '@nestjs/common';
import type { Logger } from '@atomo-cc/platform/logging';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';

/** How often what is too old is looked for. Nobody waits for it. */
const EVERY_MS = 3_600_000;
/** Stores that are cleared in one round, those with the oldest log first; the others have their turn in the next. */
const STORES_A_ROUND = 200;
/**
 * Bytes that no file names stay for so long, because they may be a part whose file is still being uploaded. Longer than any
 * upload takes that makes progress at all.
 */
const UPLOAD_GRACE_HOURS = 48;

/**
 * Forgets what is older than the retention: the log (and with it old versions), tombstones, answers to operations, and then
 * the bytes that nothing names any more. What was overwritten or deleted yesterday stays, however old it was: the log's row
 * of yesterday names the bytes before it.
 */
export class Retention implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private timer: NodeJS.Timeout | undefined;
  private running: Promise<void> | undefined;

  constructor(
    private readonly system: SystemDatabase,
    private readonly days: number,
    private readonly logger: Logger,
  ) {}

  onApplicationBootstrap(): void {
    this.timer = setInterval(() => {
      this.running ??= this.run()
        .catch((error: unknown) => this.logger.warn({ err: error }, 'old versions of files could not be forgotten'))
        .finally(() => (this.running = undefined));
    }, EVERY_MS).unref();
  }

  async beforeApplicationShutdown(): Promise<void> {
    clearInterval(this.timer);
    await this.running;
  }

  /** Goes over the stores once. */
  async run(): Promise<void> {
    const stores = await this.system.transaction((tx) =>
      tx.query<{ tenant_id: string; id: string }>(
        `select tenant_id, id from stores s
         order by (select min(at) from store_changes c where c.tenant_id = s.tenant_id and c.store_id = s.id) nulls first
         limit $1`,
        [STORES_A_ROUND],
      ),
    );
    for (const { tenant_id: tenant, id } of stores) {
      await this.system.transaction((tx) => clearStore(tx, tenant, id, this.days));
    }
  }
}

/** Forgets what is too old of one store, under its lock: a write that names old bytes comes before or after, never between. */
export async function clearStore(tx: Tx, tenant: string, store: string, days: number): Promise<void> {
  const ids = [tenant, store];
  const [locked] = await tx.query('select 1 from stores where tenant_id = $1 and id = $2 for no key update', ids);
  if (!locked) return;
  await tx.execute(
    `with gone as (
       delete from store_changes
       where tenant_id = $1 and store_id = $2 and at < now() - $3 * interval '1 day'
       returning seq
     )
     update stores set floor_seq = greatest(floor_seq, (select max(seq) from gone))
     where tenant_id = $1 and id = $2 and exists (select 1 from gone)`,
    [...ids, days],
  );
  await tx.execute('delete from store_files where tenant_id = $1 and store_id = $2 and expires_at < now()', ids);
  await tx.execute(
    `delete from store_ops where tenant_id = $1 and store_id = $2 and at < now() - $3 * interval '1 day'`,
    [...ids, days],
  );
  await tx.execute('delete from store_settings where tenant_id = $1 and store_id = $2 and expires_at < now()', ids);
  // A device may be connected for longer than that, and is then in the log.
  await tx.execute(
    `delete from store_devices d
     where tenant_id = $1 and store_id = $2 and last_seen_at < now() - $3 * interval '1 day'
       and not exists (select 1 from store_changes c where c.tenant_id = $1 and c.store_id = $2 and c.device = d.id)`,
    [...ids, days],
  );
  await tx.execute(
    `with named as (
       select content_hash as hash from store_files where tenant_id = $1 and store_id = $2 and content_hash is not null
       union select content_hash from store_changes where tenant_id = $1 and store_id = $2 and content_hash is not null
       union select old_content_hash from store_changes where tenant_id = $1 and store_id = $2 and old_content_hash is not null
     ), kept as (
       select hash from named
       union select p.hash from named join store_blobs b on b.tenant_id = $1 and b.store_id = $2 and b.hash = named.hash,
         lateral unnest(b.parts) as p (hash)
     )
     delete from store_blobs b
     where b.tenant_id = $1 and b.store_id = $2 and b.touched_at < now() - $3 * interval '1 hour'
       and not exists (select 1 from kept where kept.hash = b.hash)`,
    [...ids, UPLOAD_GRACE_HOURS],
  );
}
