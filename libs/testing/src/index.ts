export { aDatabase, aRedis, eventually, redisTestUrl } from './database.js';
export type { TestDatabase } from './database.js';
