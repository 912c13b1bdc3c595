export { openRedis } from './redis.js';
export type { Redis, RedisUse } from './redis.js';
