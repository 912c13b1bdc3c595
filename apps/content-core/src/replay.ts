// The process behind `npm run events -- replay`: makes everything anew that is derived from the log, says how far it is, and
// ends. A process of its own because it needs the schema, and nothing imports an app.
import { inspect } from 'node:util';
import { isCodedError } from '@atomo-cc/kernel';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, replayLog, SubjectKeys } from '@atomo-cc/event-store';
import { migrate, openSystemDatabase } from '@atomo-cc/platform/postgres';
import { replayConfig } from './config.js';
import { contentCoreMigrations } from './migrations.js';
import { createModelTables, loadSchema, projectionsOf } from './models/index.js';

/** A line of progress each so many milliseconds. */
const LINE_EVERY_MS = 2_000;
/** Two for the replay itself, the rest for the shards of async projections. */
const POOL_SIZE = 8;

try {
  const config = replayConfig();
  const schema = await loadSchema(config.ATOMO_SERVICE);
  await migrate(config.DATABASE_URL, contentCoreMigrations);
  await createModelTables(config.DATABASE_URL, schema);
  const database = await openSystemDatabase({ url: config.DATABASE_URL, service: 'atomo replay', poolSize: POOL_SIZE });
  const keys = new SubjectKeys(config.ENCRYPTION_KEY);
  await database.transaction((tx) => keys.check(tx));
  const codec = new EventCodec(keys, ATOMO_EVENTS);
  const from = performance.now();
  const totals = await replayLog({
    databaseUrl: config.DATABASE_URL,
    database,
    projections: projectionsOf(schema, codec),
    decode: (tx, events) => codec.decode(tx, events),
    isAgain: process.argv.includes('--again'),
    onProgress: progressLines(),
  }).finally(() => database.close());
  const seconds = (performance.now() - from) / 1000;
  const said = Object.entries(totals).map(([step, events]) => `${step} ${events}`);
  say(`Replayed in ${seconds.toFixed(1)} s, events by step: ${said.join(', ')}.`);
} catch (error) {
  process.stderr.write(`${isCodedError(error) ? error.message : inspect(error)}\n`);
  process.exitCode = 1;
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
