import fs from 'node:fs';
import path from 'node:path';
import readline from 'node:readline';
import { isCodedError, type TenantId } from '@atomo-cc/kernel';
import {
  checkpointKey,
  CheckpointWriter,
  compareWithCheckpoint,
  EVENT_LOG_ERRORS,
  readCheckpoint,
  verifyLog,
  type LogFault,
  type LogTotals,
} from '@atomo-cc/event-store';
import { describeConnectFault, openSystemDatabase, sqlState, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { readConfig, type LocalConfig } from './config.js';
import type { Secrets } from './home.js';
import { parseOptions } from './options.js';
import { reasonOf, Refusal, runCommand } from './refusal.js';
import type { RunningSystem } from './supervisor.js';

const USAGE =
  'Say what to do: npm run events -- verify, or npm run events -- checkpoint FILE; see npm run events -- --help.';
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** What Postgres answers where Atomo's tables or columns are not there yet. */
const NOT_MIGRATED = ['42P01', '42703'];
/** What Postgres answers for a role that is not there, or that the login may not act as. */
const NO_ROLE = ['22023', '42501'];

await runCommand(async () => {
  const { values, positionals } = parseOptions('events', process.argv.slice(2), {
    tenant: { type: 'string' },
    checkpoint: { type: 'string' },
  });
  const config = readConfig();
  const [action, target, ...more] = positionals;
  const isVerify = action === 'verify' && target === undefined;
  const isCheckpoint = action === 'checkpoint' && target !== undefined && values.checkpoint === undefined;
  if (more.length > 0 || !(isVerify || isCheckpoint)) throw new Refusal(USAGE);
  const tenant = tenantOf(values.tenant);
  const database = await open(databaseUrl(config));
  try {
    if (target !== undefined) return await writeCheckpoint(database, config, target, tenant);
    return await verify(database, config, values.checkpoint, tenant);
  } catch (error) {
    throw told(error);
  } finally {
    await database.close();
  }
});
process.exit();

async function verify(
  database: SystemDatabase,
  config: LocalConfig,
  file: string | undefined,
  tenant: TenantId | undefined,
): Promise<number> {
  const from = performance.now();
  // A checkpoint is believed only after its seal, which stands at its end: it is read once for that, and again to compare.
  const checkpoint = file === undefined ? undefined : () => readCheckpoint(linesOf(config, file), secretKey(config));
  const scope = checkpoint && (await drained(checkpoint()));
  if (scope?.tenant && scope.tenant !== tenant) {
    throw new Refusal(`${file} covers one tenant only: verify it with --tenant ${scope.tenant}.`);
  }
  const totals = await verifyLog(database, { tenant, onFault: tell });
  const compared = checkpoint && (await compareWithCheckpoint(database, checkpoint(), { tenant, onFault: tell }));
  const broken = totals.broken + (compared?.broken ?? 0);
  console.log(summary(totals, from));
  if (compared) {
    console.log(
      compared.broken === 0
        ? `All ${compared.streams} streams of the checkpoint of ${scope!.at.toISOString()} are as they were.`
        : `${compared.broken} of ${compared.streams} streams of the checkpoint of ${scope!.at.toISOString()} are not as they were.`,
    );
  }
  return broken === 0 ? 0 : 1;
}

/** A file that is there is whole: it gets its name only when its last line is on disk. */
async function writeCheckpoint(
  database: SystemDatabase,
  config: LocalConfig,
  target: string,
  tenant: TenantId | undefined,
): Promise<number> {
  const from = performance.now();
  const file = path.resolve(config.cwd, target);
  const unfinished = `${file}.${process.pid}.new`;
  const writer = new CheckpointWriter(secretKey(config), { tenant: tenant ?? null, at: new Date() });
  const output = await fs.promises.open(unfinished, 'wx', 0o600).catch((error: unknown) => {
    throw new Refusal(`${file} cannot be written: ${reasonOf(error)}.`);
  });
  try {
    await output.appendFile(writer.begin());
    const totals = await verifyLog(database, {
      tenant,
      onFault: tell,
      onSound: (head) => output.appendFile(writer.head(head)),
    });
    console.log(summary(totals, from));
    if (totals.broken > 0) {
      console.error(`${target} was not written: a checkpoint must not vouch for a log that is broken.`);
      return 1;
    }
    await output.appendFile(writer.end());
    await output.sync();
    await fs.promises.rename(unfinished, file);
    console.log(`Checkpoint written to ${file}: keep it, and the AUTH_SECRET of today, away from the database.`);
    return 0;
  } finally {
    await output.close();
    await fs.promises.rm(unfinished, { force: true });
  }
}

/** One line; names are quoted, since nobody vouches for what stands in a broken log. */
function tell({ tenant, stream, version, position, code }: LogFault): void {
  const where = `tenant ${tenant}, stream ${JSON.stringify(stream)}, version ${version}, position ${position ?? 'none'}`;
  console.error(`${where}: ${code}. ${EVENT_LOG_ERRORS[code]}`);
}

function summary(totals: LogTotals, from: number): string {
  const seconds = ((performance.now() - from) / 1000).toFixed(1);
  const looked = `${totals.streams} streams, ${totals.events} events, ${seconds} s`;
  const said = totals.broken === 0 ? 'Every chain is sound' : `Broken streams: ${totals.broken}`;
  const old =
    totals.unchained > 0 ? ` Older than the chain, so nothing vouches for them: ${totals.unchained} events.` : '';
  return `${said} (${looked}).${old}`;
}

function tenantOf(given: string | undefined): TenantId | undefined {
  if (given === undefined) return undefined;
  const tenant = given.toLowerCase();
  if (!UUID.test(tenant)) throw new Refusal(`--tenant ${given} is no id such as 00000000-0000-7000-8000-000000000001.`);
  return tenant as TenantId;
}

/** DATABASE_URL, else the database of the Atomo that runs from this ATOMO_HOME. */
function databaseUrl(config: LocalConfig): string {
  if (config.databaseUrl) return config.databaseUrl;
  const running = readHome<RunningSystem>(config, 'run.json');
  if (running?.databaseUrl) return running.databaseUrl;
  throw new Refusal('Atomo is not running (or not ready yet): start it with npm start, or set DATABASE_URL.');
}

function secretKey(config: LocalConfig): Buffer {
  const secret = config.authSecret || readHome<Secrets>(config, 'secrets.json')?.authSecret;
  if (secret) return checkpointKey(secret);
  throw new Refusal('A checkpoint is signed with a key made from AUTH_SECRET: set it as the services have it.');
}

/** A file of ATOMO_HOME; undefined when it is not there or cannot be read. */
function readHome<Content>(config: LocalConfig, name: string): Partial<Content> | undefined {
  try {
    return JSON.parse(fs.readFileSync(path.join(config.home, name), 'utf8')) as Partial<Content>;
  } catch {
    return undefined;
  }
}

async function open(url: string): Promise<SystemDatabase> {
  try {
    return await openSystemDatabase({ url, service: 'atomo events', poolSize: 1 });
  } catch (error) {
    throw NO_ROLE.includes(sqlState(error) ?? (error as { code?: string }).code ?? '')
      ? notMigrated()
      : new Refusal(describeConnectFault(url, error));
  }
}

/** An expected failure as a sentence, any other as it was. */
function told(error: unknown): unknown {
  if (isCodedError(error)) return new Refusal(error.message);
  return NOT_MIGRATED.includes(sqlState(error) ?? '') ? notMigrated() : error;
}

function notMigrated(): Refusal {
  return new Refusal('This database is not one of this version of Atomo: let Atomo start on it once, then try again.');
}

async function* linesOf(config: LocalConfig, given: string): AsyncGenerator<string> {
  const file = path.resolve(config.cwd, given);
  const handle = await fs.promises.open(file).catch((error: unknown) => {
    throw new Refusal(`${file} cannot be read: ${reasonOf(error)}.`);
  });
  try {
    yield* readline.createInterface({ input: handle.createReadStream({ autoClose: false }), crlfDelay: Infinity });
  } finally {
    await handle.close();
  }
}

async function drained<Result>(generator: AsyncGenerator<unknown, Result>): Promise<Result> {
  for (;;) {
    const { done, value } = await generator.next();
    if (done) return value;
  }
}
