import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { readConfig, type LocalConfig } from './config.js';
import { openHome } from './home.js';
import { databaseUrl } from './operator-database.js';
import { parseOptions } from './options.js';
import { providePostgres } from './postgres.js';
import { Refusal, runCommand } from './refusal.js';
import { openRoster } from './roster.js';

const USAGE = 'Say what to do: npm run migrate -- plan or apply; see npm run migrate -- --help.';

await runCommand(async () => {
  const { values, positionals } = parseOptions('migrate', process.argv.slice(2), {
    service: { type: 'string' },
    rename: { type: 'string', multiple: true },
    allow: { type: 'string', multiple: true },
  });
  const [action, ...more] = positionals;
  if ((action !== 'plan' && action !== 'apply') || more.length > 0) throw new Refusal(USAGE);
  const config = readConfig();
  const service = values.service === undefined ? config.service : path.resolve(config.cwd, values.service);
  const answers = [
    ...(values.rename ?? []).map((rename) => `--rename=${rename}`),
    ...(values.allow ?? []).map((name) => `--allow=${name}`),
  ];
  return onDatabase(config, async (url) => {
    // content-core knows the models; its process speaks for itself.
    const program = path.join(config.root, 'apps', 'content-core', 'dist', 'migrate.js');
    const child = spawn(process.execPath, [program, action, ...answers], {
      env: { ...config.environment, DATABASE_URL: url, ATOMO_SERVICE: service },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    const stop = (signal: NodeJS.Signals) => void child.kill(signal);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
    const [code] = (await once(child, 'close')) as [number | null];
    return code ?? 1;
  });
});
process.exit();

/**
 * Works on the database of DATABASE_URL or of the Atomo that runs; else starts the Postgres of this ATOMO_HOME for as long as
 * it takes, because a schema that needs a decision is what keeps Atomo from starting.
 */
async function onDatabase(config: LocalConfig, work: (url: string) => Promise<number>): Promise<number> {
  if (config.databaseUrl || !fs.existsSync(path.join(config.home, 'secrets.json'))) return work(databaseUrl(config));
  const home = openHome(config.home);
  const roster = await openRoster(home.socket).catch((error: unknown) => {
    if (error instanceof Refusal) return null;
    throw error;
  });
  if (!roster) return work(databaseUrl(config));
  try {
    const { root, environment } = config;
    const postgres = await providePostgres({ home, root, environment, databaseUrl: '', say: () => undefined });
    try {
      return await work(postgres.url);
    } finally {
      await postgres.stop();
    }
  } finally {
    await roster.close();
  }
}
