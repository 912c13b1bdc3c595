// The process behind `npm run keys`: tells under which ENCRYPTION_KEY the keys of personal data and of secrets are, or wraps them all
// under the one in use, and ends. Ends with 0 when all are under it, with 2 when some are not.
import { inspect, parseArgs } from 'node:util';
import { Secrets } from '@atomo-cc/access';
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
  const secrets = new Secrets(keys.ring);
  const system = await openSystemDatabase({ url, service: 'atomo keys', poolSize: 1 });
  try {
    if (positionals[0] === 'rotate') {
      const keysDone = await keys.rewrap(system, (done) => {
        if (done % LINE_EVERY_KEYS === 0) say(`${done} keys wrapped anew`);
      });
      const secretsDone = await secrets.rewrap(system);
      say(`Wrapped anew: keys of ${keysDone} subjects and ${secretsDone} secrets, under ${keys.ring.id}.`);
    }
    const [subjectKeys, secretKeys] = await system.transaction((tx) =>
      Promise.all([keys.counts(tx), secrets.counts(tx)]),
    );
    const ids = new Set([...subjectKeys, ...secretKeys].map(({ id }) => id));
    for (const id of [...ids].toSorted()) {
      const ofSubjects = subjectKeys.find((each) => each.id === id)?.keys ?? 0;
      const ofSecrets = secretKeys.find((each) => each.id === id)?.secrets ?? 0;
      const state = !keys.ring.knows(id)
        ? 'unknown: its ENCRYPTION_KEY is not given'
        : id === keys.ring.id
          ? 'in use'
          : 'accepted';
      say(`${id}  ${ofSubjects} keys of subjects  ${ofSecrets} secrets  ${state}`);
    }
    if ([...ids].some((id) => id !== keys.ring.id)) process.exitCode = LEFT_TO_DO;
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
