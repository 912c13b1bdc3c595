import path from 'node:path';
import { readConfig, type LocalConfig } from './config.js';
import { onDatabase, runContentCore } from './content-core.js';
import { readHome } from './operator-database.js';
import { chooseAction, parseOptions } from './options.js';
import { runCommand } from './refusal.js';
import type { RunningSystem } from './supervisor.js';

const EXAMPLE =
  'npm run tenants -- create NAME, suspend TENANT, resume TENANT, plan TENANT PLAN, quota TENANT, limit TENANT NAME=VALUE or delete TENANT';
/** What each action takes. */
const ACTIONS = {
  list: { words: 0, options: [] },
  create: { words: 1, options: ['slug', 'plan', 'reason'] },
  suspend: { words: 1, options: ['reason'] },
  resume: { words: 1, options: ['reason'] },
  plan: { words: 2, options: ['reason'] },
  quota: { words: 1, options: [] },
  limit: { words: 2, options: ['reason'] },
  delete: { words: 1, options: ['confirm', 'reason'] },
} as const;

await runCommand(async () => {
  const args = process.argv.slice(2);
  const { values, positionals } = parseOptions('tenants', args, {
    slug: { type: 'string' },
    plan: { type: 'string' },
    confirm: { type: 'string' },
    reason: { type: 'string' },
  });
  const given = positionals.length > 0 ? positionals : ['list'];
  chooseAction('tenants', ACTIONS, given, { options: values, example: EXAMPLE });
  const config = readConfig();
  return onDatabase(config, (url) =>
    runContentCore(config, url, { program: 'tenants', args, environment: placesOf(config) }),
  );
});
process.exit();

/** Where a tenant's jobs and memory are: as the Atomo that runs has it, unless the environment says otherwise. */
function placesOf(config: LocalConfig): Record<string, string> {
  const running = readHome<RunningSystem>(config, 'run.json');
  const redisUrl = config.redisUrl || running?.redisUrl;
  return {
    ...(redisUrl && { REDIS_URL: redisUrl }),
    MEMORY_URI: config.memoryUri || running?.memoryUri || path.join(config.home, 'memory'),
    // The folder of this home is of this machine, and so is this command.
    ...(!config.databaseUrl && { ATOMO_MODE: 'embedded' }),
  };
}
