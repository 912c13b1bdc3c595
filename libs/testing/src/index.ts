export { aCable } from './cable.js';
export type { Cable, CutAt } from './cable.js';
export { aConnection, aDatabase, aRedis, eventually, redisTestUrl } from './database.js';
export type { TestDatabase } from './database.js';
export { anOwnPostgres } from './own-postgres.js';
export type { OwnPostgres, PostgresEnd } from './own-postgres.js';
export { aSeed, seeded } from './seeded.js';
