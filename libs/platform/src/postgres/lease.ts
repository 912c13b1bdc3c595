import type { MigrationInterface, QueryRunner } from 'typeorm';
import type { Tx } from './database.js';
import { SYSTEM_ROLE } from './database.js';
import { runAll } from './migrate.js';

/** A held lease. `epoch` grows with every change of holder: a write that names an older one comes from a process that lost it. */
export interface Lease {
  readonly name: string;
  readonly holder: string;
  readonly epoch: number;
}

/** The table of leases: who may do a thing of which only one may be done at a time. Times are the database's, so clocks need not agree. */
export class Leases1700000001000 implements MigrationInterface {
  name = 'Leases1700000001000';

  async up(runner: QueryRunner): Promise<void> {
    await runAll(runner, [
      `create table leases (
         name text primary key,
         holder text not null,
         epoch bigint not null,
         expires_at timestamptz not null
       )`,
      `grant select, insert, update, delete on leases to ${SYSTEM_ROLE}`,
    ]);
  }

  async down(runner: QueryRunner): Promise<void> {
    await runner.query('drop table leases');
  }
}

/** Takes the lease when it is free, expired or already ours, and keeps it for `ttlMs`. Null: someone else holds it. */
export async function takeLease(tx: Tx, name: string, holder: string, ttlMs: number): Promise<Lease | null> {
  const [row] = await tx.query<{ epoch: string }>(
    `insert into leases as l (name, holder, epoch, expires_at)
     values ($1, $2, 1, clock_timestamp() + $3 * interval '1 millisecond')
     on conflict (name) do update
       set holder = excluded.holder,
           epoch = l.epoch + case when l.holder = excluded.holder and l.expires_at > clock_timestamp() then 0 else 1 end,
           expires_at = excluded.expires_at
       where l.holder = excluded.holder or l.expires_at <= clock_timestamp()
     returning epoch`,
    [name, holder, ttlMs],
  );
  return row ? { name, holder, epoch: Number(row.epoch) } : null;
}

/** Gives the lease up at once, so that the next holder need not wait for it to expire. */
export async function releaseLease(tx: Tx, lease: Lease): Promise<void> {
  await tx.execute(`update leases set expires_at = clock_timestamp() where name = $1 and holder = $2 and epoch = $3`, [
    lease.name,
    lease.holder,
    lease.epoch,
  ]);
}
