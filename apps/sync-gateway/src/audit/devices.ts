import { Inject, Injectable } from '@nestjs/common';
import type { MigrationInterface, QueryRunner } from 'typeorm';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { AppDatabase, runAll, tenantTable, type Tx } from '@atomo-cc/platform/postgres';
import type { Device, DeviceView } from '@atomo-cc/sync-protocol';
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

/** Remembers which devices connect. */
@Injectable()
export class Devices {
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
}

/** The devices that are remembered of a store, the last seen first. */
export async function listDevices(tx: Tx, storeId: string): Promise<DeviceView[]> {
  const rows = await tx.query<{
    id: string;
    name: string | null;
    platform: string | null;
    app: string | null;
    key_id: string;
    first_seen_at: Date;
    last_seen_at: Date;
  }>(
    `select id, name, platform, app, key_id, first_seen_at, last_seen_at from store_devices
     where store_id = $1 order by last_seen_at desc, id`,
    [storeId],
  );
  return rows.map(({ id, name, platform, app, ...row }) => ({
    id,
    name,
    platform,
    app,
    keyId: row.key_id,
    firstSeenAt: row.first_seen_at.toISOString(),
    lastSeenAt: row.last_seen_at.toISOString(),
  }));
}
