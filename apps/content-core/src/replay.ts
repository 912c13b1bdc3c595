// The process behind `npm run events -- replay`: makes everything anew that is derived from the log, says how far it is, and
// ends. A process of its own because it needs the schema, and nothing imports an app. With --tables-only it makes the tables of an
// empty database and leaves it at that; with --again it empties what is derived first.
import { inspect } from 'node:util';
import { isCodedError } from '@atomo-cc/kernel';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, replayLog, SubjectKeys } from '@atomo-cc/event-store';
import { migrate, openSystemDatabase } from '@atomo-cc/platform/postgres';
import { formerNames, type SchemaDefinition } from '@atomo-cc/schema';
import { encryptionConfig, tablesConfig } from './config.js';
import { contentCoreMigrations } from './migrations.js';
import { createModelTables, loadSchema, projectionsOf } from './models/index.js';

/** A line of progress each so many milliseconds. */
const LINE_EVERY_MS = 2_000;
/** Two for the replay itself, the rest for the shards of async projections. */
const POOL_SIZE = 8;

try {
  const { DATABASE_URL, ATOMO_SERVICE } = tablesConfig();
  const schema = await loadSchema(ATOMO_SERVICE);
  await migrate(DATABASE_URL, contentCoreMigrations);
  await createModelTables(DATABASE_URL, schema);
  if (!process.argv.includes('--tables-only')) await replay(DATABASE_URL, schema);
} catch (error) {
  process.stderr.write(`${isCodedError(error) ? error.message : inspect(error)}\n`);
  process.exitCode = 1;
}

async function replay(databaseUrl: string, schema: SchemaDefinition): Promise<void> {
  const { ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED } = encryptionConfig();
  const keys = new SubjectKeys(ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED);
  const codec = new EventCodec(keys, ATOMO_EVENTS.withFormerNames(formerNames(schema)));
  const database = await openSystemDatabase({ url: databaseUrl, service: 'atomo replay', poolSize: POOL_SIZE });
  const from = performance.now();
  try {
    await database.transaction((tx) => keys.check(tx));
    const totals = await replayLog({
      databaseUrl,
      database,
      projections: projectionsOf(schema, codec),
      decode: (tx, events) => codec.decode(tx, events),
      isAgain: process.argv.includes('--again'),
      onProgress: progressLines(),
    });
    const seconds = (performance.now() - from) / 1000;
    const said = Object.entries(totals).map(([step, events]) => `${step} ${events}`);
    say(`Replayed in ${seconds.toFixed(1)} s, events by step: ${said.join(', ')}.`);
  } finally {
    await database.close();
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** A line now and then for each step: how far it is, how fast, and how long it will go on. */
function progressLines() {
  let [step, from, toldAt] = ['', 0, 0];
  return (name: string, events: number, expected: number): void => {
    const now = performance.now();
    if (name !== step) [step, from, toldAt] = [name, now, now];
    if (now - toldAt < LINE_EVERY_MS) return;
    toldAt = now;
    const rate = events / ((now - from) / 1000);
    const left = rate > 0 ? `, about ${Math.ceil(Math.max(0, expected - events) / rate)} s left` : '';
    say(`${name}: ${events} of ${expected} events, ${Math.round(rate)} events/s${left}`);
  };
}
