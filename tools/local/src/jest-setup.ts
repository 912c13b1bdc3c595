import { publishTestUrls, readConfig } from './config.js';
import { startTestServers } from './throw-away.js';
import { keepForTeardown } from './jest-teardown.js';

/** Jest's global set-up of the project `int`: Postgres and Redis, unless ATOMO_TEST_DATABASE_URL and ATOMO_TEST_REDIS_URL name them. */
export default async function setUp(): Promise<void> {
  const servers = await startTestServers(readConfig(), (line) => console.log(line));
  publishTestUrls(servers.databaseUrl, servers.redisUrl);
  keepForTeardown(servers);
}
