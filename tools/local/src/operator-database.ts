import fs from 'node:fs';
import path from 'node:path';
import { isCodedError, type TenantId } from '@atomo-cc/kernel';
import { describeConnectFault, openSystemDatabase, sqlState, type SystemDatabase } from '@atomo-cc/platform/postgres';
import type { LocalConfig } from './config.js';
import { Refusal } from './refusal.js';
import type { RunningSystem } from './supervisor.js';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** What Postgres answers where Atomo's tables or columns are not there yet. */
const NOT_MIGRATED = ['42P01', '42703'];
/** What Postgres answers for a role that is not there, or that the login may not act as. */
const NO_ROLE = ['22023', '42501'];

/**
 * Runs an operator's command on the database, with the rights of background parts.
 * @throws Refusal when there is none, or it is not of this version, and for every coded error
 */
export async function onOperatorDatabase(
  url: string,
  command: string,
  work: (database: SystemDatabase) => Promise<number>,
): Promise<number> {
  const database = await open(url, command);
  try {
    return await work(database);
  } catch (error) {
    throw toldAs(error);
  } finally {
    await database.close();
  }
}

/** The database of DATABASE_URL, else that of the Atomo that runs from this ATOMO_HOME. @throws Refusal */
export function databaseUrl(config: LocalConfig): string {
  if (config.databaseUrl) return config.databaseUrl;
  const running = readHome<RunningSystem>(config, 'run.json');
  if (running?.databaseUrl) return running.databaseUrl;
  throw new Refusal('Atomo is not running (or not ready yet): start it with npm start, or set DATABASE_URL.');
}

/** A file of ATOMO_HOME; undefined when it is not there or cannot be read. */
export function readHome<Content>(config: LocalConfig, name: string): Partial<Content> | undefined {
  try {
    return JSON.parse(fs.readFileSync(path.join(config.home, name), 'utf8')) as Partial<Content>;
  } catch {
    return undefined;
  }
}

/** The tenant of `--tenant`. @throws Refusal for what is no id */
export function tenantOf(given: string | undefined): TenantId | undefined {
  if (given === undefined) return undefined;
  const tenant = given.toLowerCase();
  if (!UUID.test(tenant)) throw new Refusal(`--tenant ${given} is no id such as 00000000-0000-7000-8000-000000000001.`);
  return tenant as TenantId;
}

async function open(url: string, command: string): Promise<SystemDatabase> {
  try {
    return await openSystemDatabase({ url, service: `atomo ${command}`, poolSize: 1 });
  } catch (error) {
    throw NO_ROLE.includes(sqlState(error) ?? (error as { code?: string }).code ?? '')
      ? notMigrated()
      : new Refusal(describeConnectFault(url, error));
  }
}

/** An expected failure as a Refusal with its sentence, any other as it was. */
export function toldAs(error: unknown): unknown {
  if (isCodedError(error)) return new Refusal(error.message);
  return NOT_MIGRATED.includes(sqlState(error) ?? '') ? notMigrated() : error;
}

function notMigrated(): Refusal {
  return new Refusal('This database is not one of this version of Atomo: let Atomo start on it once, then try again.');
}
