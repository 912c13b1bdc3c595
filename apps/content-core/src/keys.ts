// The process behind `npm run keys`: tells under which ENCRYPTION_KEY the keys of personal data are, or wraps them all under the one
// in use, and ends. Ends with 0 when all are under it, with 2 when some are not.
import { inspect, parseArgs } from 'node:util';
import { SubjectKeys } from '@atomo-cc/event-store';
import { isCodedError } from '@atomo-cc/kernel';
import { migrate, openSystemDatabase } from '@atomo-cc/platform/postgres';
import { encryptionConfig, tablesConfig } from './config.js';
import { contentCoreMigrations } from './migrations.js';

const LEFT_TO_DO = 2;
/** A line of progress each so many keys. */
const LINE_EVERY_KEYS = 10_000;

try {
  const { positionals } = parseArgs({ allowPositionals: true });
  const { DATABASE_URL: url } = tablesConfig();
  const { ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED } = encryptionConfig();
  await migrate(url, contentCoreMigrations);
  const keys = new SubjectKeys(ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED);
  const system = await openSystemDatabase({ url, service: 'atomo keys', poolSize: 1 });
  try {
    if (positionals[0] === 'rotate') {
      const total = await keys.rewrap(system, (done) => {
        if (done % LINE_EVERY_KEYS === 0) say(`${done} keys wrapped anew`);
      });
      say(`${total} keys wrapped anew under ${keys.id}.`);
    }
    const counts = await system.transaction((tx) => keys.counts(tx));
    for (const { id, keys: number, isKnown } of counts) {
      say(
        `${id}  ${number} keys  ${id === keys.id ? 'in use' : isKnown ? 'accepted' : 'unknown: its ENCRYPTION_KEY is not given'}`,
      );
    }
    if (counts.some(({ id }) => id !== keys.id)) process.exitCode = LEFT_TO_DO;
  } finally {
    await system.close();
  }
} catch (error) {
  process.stderr.write(`${isCodedError(error) ? error.message : inspect(error)}\n`);
  process.exitCode = 1;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
