export {
  APP_ROLE,
  AppDatabase,
  fateOf,
  openAppDatabase,
  openSystemDatabase,
  SYSTEM_ROLE,
  SystemDatabase,
  Tx,
} from './database.js';
export { booleanArray, byteaArray, doubleArray, intArray, jsonArray, textArray, timestampArray } from './arrays.js';
export type { DatabaseOptions, TransactionFate } from './database.js';
export { POSTGRES_ERRORS, sqlState, violatedConstraint } from './errors.js';
export { Leases1700000001000, releaseLease, takeLease } from './lease.js';
export type { Lease } from './lease.js';
export { changeTables, describeConnectFault, migrate, runAll, tenantTable } from './migrate.js';
export type { Migration } from './migrate.js';
export { deleteTenantRows, tenantTables } from './tenant-rows.js';
