import { type BeforeApplicationShutdown, Inject, Injectable } from '@nestjs/common';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import type { TenantId } from '@atomo-cc/kernel';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { AppDatabase, runAll, tenantTable, textArray, type Tx } from '@atomo-cc/platform/postgres';
import type { Applied, Device, DeviceList } from '@atomo-cc/sync-protocol';
import type { StoreKey } from '../credentials/index.js';

/** Devices that are remembered of one store; whoever makes up more gains nothing by it, and the log has their ids. */
const DEVICES_OF_A_STORE = 1_000;
/** How old `last_seen_at` may be: a device that connects all the time does not rewrite its row with each connection. */
const SEEN_MINUTES = 5;

/** The table of devices: the log knows them by the id that they gave themselves, and here is what else they said. */
export class StoreDevices1700000300005 implements MigrationInterface {
  name = 'StoreDevices1700000300005';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table store_devices (
         tenant_id uuid not null,
         store_id uuid not null,
         id text not null,
         name text,
         platform text,
         app text,
         key_id uuid not null,
         first_seen_at timestamptz not null default now(),
         last_seen_at timestamptz not null default now(),
         primary key (tenant_id, store_id, id),
         foreign key (tenant_id, store_id) references stores on delete cascade
       )`,
      ...tenantTable('store_devices', { app: 'select, insert, update', system: 'select, delete' }),
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table store_devices');
  }
}

/** How far each device has come in the log, as it says itself. */
export class DeviceProgress1700000300007 implements MigrationInterface {
  name = 'DeviceProgress1700000300007';

  async up(runner: QueryRunner): Promise<void> {
    await runner.query('alter table store_devices add epoch uuid, add applied_seq bigint, add applied_at timestamptz');
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('alter table store_devices drop epoch, drop applied_seq, drop applied_at');
  }
}

/** What devices said is written together after so long: they say it all the time, and nobody waits for it. */
const PROGRESS_MS = 2_000;
/** Devices of one writing; what others say meanwhile they say again. */
const PROGRESS_DEVICES = 10_000;

interface Progress extends Applied {
  readonly tenantId: TenantId;
  readonly storeId: string;
  readonly deviceId: string;
}

/** Remembers which devices connect, and how far they have come. */
@Injectable()
export class Devices implements BeforeApplicationShutdown {
  private readonly progress = new Map<string, Progress>();
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly database: AppDatabase,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** Notes that the device connected with the key. Nobody waits for it, and without it only a name is missing. */
  seen({ tenantId, storeId, id: keyId }: StoreKey, { id, name, platform, app }: Device): void {
    this.database
      .transaction(tenantId, (tx) =>
        tx.execute(
          `insert into store_devices as d (tenant_id, store_id, id, name, platform, app, key_id)
           select $1, s.id, $3, $4, $5, $6, $7 from stores s
           where s.id = $2 and ((select count(*) from store_devices where store_id = $2) < ${DEVICES_OF_A_STORE}
             or exists (select 1 from store_devices where store_id = $2 and id = $3))
           on conflict (tenant_id, store_id, id) do update
             set name = excluded.name, platform = excluded.platform, app = excluded.app, key_id = excluded.key_id,
                 last_seen_at = now()
             where d.last_seen_at < now() - interval '${SEEN_MINUTES} minutes'
               or (d.name, d.platform, d.app, d.key_id)
                 is distinct from (excluded.name, excluded.platform, excluded.app, excluded.key_id)`,
          [tenantId, storeId, id, name ?? null, platform ?? null, app ?? null, keyId],
        ),
      )
      .catch((error: unknown) => this.logger.warn({ err: error }, 'a device could not be remembered'));
  }

  /** Notes how far the device has come; written a little later, and true again with its next word if that fails. */
  applied({ tenantId, storeId }: StoreKey, deviceId: string, { epoch, through }: Applied): void {
    const name = `${storeId} ${deviceId}`;
    if (this.progress.size >= PROGRESS_DEVICES && !this.progress.has(name)) return;
    this.progress.set(name, { tenantId, storeId, deviceId, epoch, through });
    this.timer ??= setTimeout(() => void this.writeProgress(), PROGRESS_MS).unref();
  }

  async beforeApplicationShutdown(): Promise<void> {
    await this.writeProgress();
  }

  private async writeProgress(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    const tenants = Map.groupBy(this.progress.values(), ({ tenantId }) => tenantId);
    this.progress.clear();
    for (const [tenant, said] of tenants) {
      const column = (of: (progress: Progress) => string) => textArray(said.map(of));
      await this.database
        .transaction(tenant, (tx) =>
          tx.execute(
            `update store_devices d
             set epoch = s.epoch, applied_seq = least(n.through, s.head_seq), applied_at = now()
             from unnest($1::text[]::uuid[], $2::text[], $3::text[]::uuid[], $4::text[]::bigint[]) as n (store_id, id, epoch, through)
             join stores s on s.id = n.store_id and s.epoch = n.epoch
             where d.store_id = n.store_id and d.id = n.id
               and (d.epoch, d.applied_seq) is distinct from (s.epoch, least(n.through, s.head_seq))`,
            [
              column(({ storeId }) => storeId),
              column(({ deviceId }) => deviceId),
              column(({ epoch }) => epoch),
              column(({ through }) => String(through)),
            ],
          ),
        )
        .catch((error: unknown) => this.logger.warn({ err: error }, 'how far devices have come could not be noted'));
    }
  }
}

/** The devices that are remembered of a store, the last seen first, and where the store stands. */
export async function listDevices(tx: Tx, storeId: string): Promise<DeviceList> {
  const rows = await tx.query<{
    id: string;
    name: string | null;
    platform: string | null;
    app: string | null;
    key_id: string;
    first_seen_at: Date;
    last_seen_at: Date;
    applied_seq: string | null;
    applied_at: Date | null;
    is_of_this_log: boolean;
  }>(
    `select d.id, d.name, d.platform, d.app, d.key_id, d.first_seen_at, d.last_seen_at, d.applied_seq, d.applied_at,
            d.epoch = s.epoch as is_of_this_log
     from store_devices d join stores s on s.id = d.store_id
     where d.store_id = $1 order by d.last_seen_at desc, d.id`,
    [storeId],
  );
  const devices = rows.map(({ id, name, platform, app, ...row }) => ({
    id,
    name,
    platform,
    app,
    keyId: row.key_id,
    firstSeenAt: row.first_seen_at.toISOString(),
    lastSeenAt: row.last_seen_at.toISOString(),
    applied: row.is_of_this_log ? { through: Number(row.applied_seq), at: row.applied_at!.toISOString() } : null,
  }));
  const [store] = await tx.query<{ head_seq: string }>('select head_seq from stores where id = $1', [storeId]);
  return { head: Number(store?.head_seq ?? 0), devices };
}
