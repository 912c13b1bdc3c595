import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import type { LocalConfig } from './config.js';
import { openHome, SERVICE_FILE, type Secrets, type StartedService } from './home.js';
import { databaseUrl, readHome } from './operator-database.js';
import { providePostgres } from './postgres.js';
import { Refusal } from './refusal.js';
import { openRoster } from './roster.js';

/**
 * Runs one of content-core's own processes to its end: what needs the schema is done there, because nothing imports an app. It
 * speaks for itself; a signal to us is handed on.
 * @returns its exit code
 */
export async function runContentCore(
  config: LocalConfig,
  url: string,
  order: {
    readonly program: 'keys' | 'migrate' | 'replay' | 'tenants' | 'user';
    readonly args: readonly string[];
    readonly environment?: Readonly<Record<string, string>>;
  },
): Promise<number> {
  const program = path.join(config.root, 'apps', 'content-core', 'dist', `${order.program}.js`);
  const child = spawn(process.execPath, [program, ...order.args], {
    env: {
      ...config.environment,
      DATABASE_URL: url,
      ATOMO_SERVICE: serviceOf(config),
      ENCRYPTION_KEY: config.encryptionKey || (readHome<Secrets>(config, 'secrets.json')?.encryptionKey ?? ''),
      ...order.environment,
    },
    stdio: 'inherit',
  });
  const stop = (signal: NodeJS.Signals) => void child.kill(signal);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
  const [code] = (await once(child, 'close')) as [number | null];
  return code ?? 1;
}

/** The folder of the schema: that of ATOMO_SERVICE, else the one that this ATOMO_HOME was started with last, else the default. */
export function serviceOf(config: LocalConfig): string {
  if (config.environment.ATOMO_SERVICE) return config.service;
  return readHome<StartedService>(config, SERVICE_FILE)?.folder ?? config.service;
}

/**
 * Works on the database of DATABASE_URL or of the Atomo that runs; else starts the Postgres of this ATOMO_HOME for as long as
 * it takes, because a schema that needs a decision, or a login that is lost, is what keeps Atomo from being used.
 */
export async function onDatabase(config: LocalConfig, work: (url: string) => Promise<number>): Promise<number> {
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
