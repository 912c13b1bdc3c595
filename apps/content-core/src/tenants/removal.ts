import { beginDeletion, type By, type Tenant } from '@atomo-cc/access';
import { sleep } from '@atomo-cc/kernel';
import type { SemanticStore } from '@atomo-cc/memory';
import type { BlobStore } from '@atomo-cc/platform/blobs';
import { deleteTenantRows, type SystemDatabase } from '@atomo-cc/platform/postgres';
import type { JobQueues } from '@atomo-cc/platform/queues';

/** By then nobody of the tenant is in any more, on any node: twice the 5 s for which a process may believe what it has read. */
const SHUT_OUT_MS = 10_000;

/** Every place where something of a tenant is kept. */
export interface TenantPlaces {
  /** Of the tables' owner. */
  readonly databaseUrl: string;
  readonly system: SystemDatabase;
  readonly queues: JobQueues;
  readonly blobs: BlobStore;
  readonly memory: SemanticStore;
}

/**
 * Deletes a tenant with all that is kept of it: first everybody is shut out, then its jobs, its blobs, its rows in every table, its
 * memory index, and at last the tenant itself. Each step may be taken again, so after an interruption it is called again.
 * @param tell a line now and then of what is done
 * @throws CodedError NOT_FOUND; CONFLICT for the default tenant
 */
export async function removeTenant(
  places: TenantPlaces,
  which: string,
  by: By,
  tell: (line: string) => void = () => undefined,
  shutOutMs: number = SHUT_OUT_MS,
): Promise<Tenant> {
  const { databaseUrl, system, queues, blobs, memory } = places;
  const tenant = await beginDeletion(system, which, by);
  const waitMs = tenant.deletingAt!.getTime() + shutOutMs - Date.now();
  if (waitMs > 0) {
    tell(`${tenant.slug} is shut out; waiting ${Math.ceil(waitMs / 1000)} s until that holds everywhere.`);
    await sleep(waitMs);
  }
  tell(`Jobs: ${await queues.removeJobsOf(tenant.id)} removed.`);
  tell(`Blobs: ${await blobs.deleteAll(tenant.id)} removed.`);
  // The index is filled from rows, so it goes after them; the tenant's own row is what an interrupted deletion is found by.
  const onDeleted = (table: string, rows: number) => tell(`${table}: ${rows} rows removed.`);
  await deleteTenantRows(databaseUrl, tenant.id, { except: ['tenants'], onDeleted });
  await memory.remove(tenant.id);
  tell('Memory index: removed.');
  await deleteTenantRows(databaseUrl, tenant.id);
  return tenant;
}
