// The process behind `npm run migrate`: says what a schema would change in the database, or changes it, and ends. A process of
// its own because it needs the schema, and nothing imports an app. Ends with 0 when the database is as declared, with 2 when
// something is left to be done, with 1 when it was refused.
import { inspect, parseArgs } from 'node:util';
import { isCodedError } from '@atomo-cc/kernel';
import { migrate } from '@atomo-cc/platform/postgres';
import { tablesConfig } from './config.js';
import { contentCoreMigrations } from './migrations.js';
import { applyMigration, loadSchema, planMigration, sentenceOf } from './models/index.js';

const LEFT_TO_DO = 2;

try {
  const config = tablesConfig();
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { allow: { type: 'string', multiple: true } },
  });
  const allowed = values.allow ?? [];
  const schema = await loadSchema(config.ATOMO_SERVICE);
  if (positionals[0] === 'apply') {
    // The roles that tables are granted to come with the platform's own; a plan changes not even those.
    await migrate(config.DATABASE_URL, contentCoreMigrations);
    const { steps, drift, left } = await applyMigration(config.DATABASE_URL, schema, allowed);
    tell('Somebody else has changed the database:', drift);
    tell('Done:', steps.map(sentenceOf));
    tell('Left as it is, since nobody allowed it:', left.map(sentenceOf));
    if (steps.length + left.length === 0) say('Nothing to do: the database is as the schema declares it.');
    process.exitCode = left.length > 0 ? LEFT_TO_DO : 0;
  } else {
    const { steps, drift, left } = await planMigration(config.DATABASE_URL, schema, allowed);
    const ready = steps.filter(({ waits }) => !waits);
    const waiting = steps.filter(({ waits }) => waits);
    tell('Somebody else has changed the database:', drift);
    tell('Ready to be applied:', ready.map(sentenceOf));
    tell('Cannot be applied like this, and stops the rest:', waiting.map(sentenceOf));
    tell('Not needed, and not done unless allowed:', left.map(sentenceOf));
    const count = steps.length + left.length;
    if (count === 0) say('Nothing to do: the database is as the schema declares it.');
    process.exitCode = count > 0 ? LEFT_TO_DO : 0;
  }
} catch (error) {
  process.stderr.write(`${isCodedError(error) ? error.message : inspect(error)}\n`);
  process.exitCode = 1;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function tell(title: string, lines: readonly string[]): void {
  if (lines.length > 0) say([title, ...lines.map((line) => `  ${line}`)].join('\n'));
}
