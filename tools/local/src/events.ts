import fs from 'node:fs';
import path from 'node:path';
import type { TenantId } from '@atomo-cc/kernel';
import {
  checkpointKey,
  CheckpointWriter,
  compareWithCheckpoint,
  EVENT_LOG_ERRORS,
  exportLog,
  importLog,
  readCheckpoint,
  verifyLog,
  type LogFault,
  type LogTotals,
} from '@atomo-cc/event-store';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { readConfig, type LocalConfig } from './config.js';
import { runContentCore } from './content-core.js';
import { readLines, writeWholeFile } from './event-files.js';
import type { Secrets } from './home.js';
import { databaseUrl, onOperatorDatabase, readHome, tenantOf, toldAs } from './operator-database.js';
import { chooseAction, parseOptions } from './options.js';
import { Progress } from './progress.js';
import { Refusal, runCommand } from './refusal.js';

const EXAMPLE = 'npm run events -- verify, checkpoint FILE, export FILE, import FILE or replay';
/** What each action takes. */
const ACTIONS = {
  verify: { words: 0, options: ['tenant', 'checkpoint'] },
  checkpoint: { words: 1, options: ['tenant'] },
  export: { words: 1, options: ['tenant'] },
  import: { words: 1, options: ['unsealed'] },
  replay: { words: 0, options: ['again'] },
} as const;
await runCommand(async () => {
  const { values, positionals } = parseOptions('events', process.argv.slice(2), {
    tenant: { type: 'string' },
    checkpoint: { type: 'string' },
    unsealed: { type: 'boolean' },
    again: { type: 'boolean' },
  });
  const config = readConfig();
  const { action, words } = chooseAction('events', ACTIONS, positionals, { options: values, example: EXAMPLE });
  const [target] = words;
  const tenant = tenantOf(values.tenant);
  const url = databaseUrl(config);
  if (action === 'replay')
    return runContentCore(config, url, { program: 'replay', args: values.again ? ['--again'] : [] });
  if (action === 'import')
    return importFile(config, url, target!, values.unsealed === true).catch((error: unknown) => {
      throw toldAs(error);
    });
  return onOperatorDatabase(url, 'events', (database) => {
    if (action === 'checkpoint') return writeCheckpoint(database, config, target!, tenant);
    if (action === 'export') return exportFile(database, config, target!, tenant);
    return verify(database, config, values.checkpoint, tenant);
  });
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
  const checkpoint =
    file === undefined ? undefined : () => readCheckpoint(readLines(path.resolve(config.cwd, file)), secretKey(config));
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

async function writeCheckpoint(
  database: SystemDatabase,
  config: LocalConfig,
  target: string,
  tenant: TenantId | undefined,
): Promise<number> {
  const from = performance.now();
  const file = path.resolve(config.cwd, target);
  const writer = new CheckpointWriter(secretKey(config), { tenant: tenant ?? null, at: new Date() });
  const isWritten = await writeWholeFile(file, async (write) => {
    await write(writer.begin());
    const totals = await verifyLog(database, { tenant, onFault: tell, onSound: (head) => write(writer.head(head)) });
    console.log(summary(totals, from));
    if (totals.broken > 0) return false;
    await write(writer.end());
    return true;
  });
  if (isWritten) {
    console.log(`Checkpoint written to ${file}: keep it, and the AUTH_SECRET of today, away from the database.`);
    return 0;
  }
  console.error(`${target} was not written: a checkpoint must not vouch for a log that is broken.`);
  return 1;
}

async function exportFile(
  database: SystemDatabase,
  config: LocalConfig,
  target: string,
  tenant: TenantId | undefined,
): Promise<number> {
  const from = performance.now();
  const file = path.resolve(config.cwd, target);
  const key = secretKey(config);
  const progress = new Progress('export');
  let said = '';
  try {
    await writeWholeFile(file, async (write) => {
      const onProgress = (events: number, expected: number) => progress.show(events, expected, rate(events, from));
      const { events, keys, answers } = await exportLog(database, { key, tenant, write, onProgress });
      said = `${events} events, ${keys} keys of subjects, ${answers} answers (${rate(events, from)})`;
      return true;
    });
  } finally {
    progress.end();
  }
  console.log(`${said} exported to ${file}: to import it, the AUTH_SECRET of today is needed.`);
  return 0;
}

/** Into a database that may be empty altogether. */
async function importFile(config: LocalConfig, url: string, target: string, isUnsealed: boolean): Promise<number> {
  if ((await runContentCore(config, url, { program: 'replay', args: ['--tables-only'] })) !== 0) return 1;
  const from = performance.now();
  const file = path.resolve(config.cwd, target);
  const key = isUnsealed ? null : secretKey(config);
  const size = fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  const progress = new Progress('import');
  let bytes = 0;
  try {
    const lines = readLines(file, (read) => (bytes = read));
    const onProgress = (events: number) => progress.show(bytes, size, rate(events, from));
    const { events, keys, answers, header } = await importLog(url, lines, { key, onProgress });
    progress.end();
    console.log(
      `${events} events, ${keys} keys of subjects, ${answers} answers imported as of ${header.at} (${rate(events, from)}).`,
    );
    console.log('What is derived from them is not there yet: npm run events -- replay.');
    return 0;
  } finally {
    progress.end();
  }
}

function rate(events: number, from: number): string {
  return `${Math.round(events / Math.max(0.001, (performance.now() - from) / 1000))} events/s`;
}

/** One line; names are quoted, since nobody vouches for what stands in a broken log. */
function tell({ tenant, stream, version, position, code }: LogFault): void {
  const where = `tenant ${tenant}, stream ${JSON.stringify(stream)}, version ${version}, position ${position ?? 'none'}`;
  console.error(`${where}: ${code}. ${EVENT_LOG_ERRORS[code]}`);
}

function summary(totals: LogTotals, from: number): string {
  const seconds = ((performance.now() - from) / 1000).toFixed(1);
  const looked = `${totals.streams} streams, ${totals.events} events, ${seconds} s`;
  const sound = totals.streams === 0 ? 'There are no events, so nothing is proved' : 'Every chain is sound';
  const said = totals.broken === 0 ? sound : `Broken streams: ${totals.broken}`;
  const old =
    totals.unchained > 0 ? ` Older than the chain, so nothing vouches for them: ${totals.unchained} events.` : '';
  return `${said} (${looked}).${old}`;
}

function secretKey(config: LocalConfig): Buffer {
  const secret = config.authSecret || readHome<Secrets>(config, 'secrets.json')?.authSecret;
  if (secret) return checkpointKey(secret);
  throw new Refusal('The file is signed with a key made from AUTH_SECRET: set it as the services have it.');
}

async function drained<Result>(generator: AsyncGenerator<unknown, Result>): Promise<Result> {
  for (;;) {
    const { done, value } = await generator.next();
    if (done) return value;
  }
}
