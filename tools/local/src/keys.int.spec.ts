import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { DEFAULT_TENANT_ID } from '@atomo-cc/kernel';
import { KeyRing } from '@atomo-cc/platform/encryption';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { makeThrowAwayFolder } from './throw-away.js';

const [OLD, NEW] = ['the former key of thirty-two bytes or so', 'the next key of thirty-two bytes or more'];
/** Processes start at the pace of a busy machine. */
jest.setTimeout(120_000);

let folder: string;
let database: TestDatabase;
beforeAll(async () => {
  folder = makeThrowAwayFolder();
  database = await aDatabase([]);
});
afterAll(async () => {
  await database.drop();
  fs.rmSync(folder, { recursive: true });
});

/** Runs a command as users do; `npm test` builds it before. */
async function run(command: 'keys' | 'user', args: readonly string[], environment: Record<string, string>) {
  const child = spawn(process.execPath, [path.resolve('tools/local/dist', `${command}.js`), ...args], {
    env: { ...process.env, DATABASE_URL: database.url, ATOMO_HOME: folder, ...environment },
  });
  child.stdin.end();
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, output };
}

test('a rotation needs the former key, and tells under which the keys are before and after it', async () => {
  await run('user', ['--email', 'ada@example.com', '--role', 'Viewer'], { ENCRYPTION_KEY: OLD });
  const ring = new KeyRing(OLD);
  const wrapped = ring.wrap(['atomo secret key', DEFAULT_TENANT_ID, 'openai'], Buffer.alloc(32));
  await database.asOwner(
    `insert into tenant_secrets (tenant_id, name, wrapped, wrapped_by, sealed, set_by, created_at, updated_at)
     values ($1, 'openai', $2, $3, '', 'user:1', now(), now())`,
    [DEFAULT_TENANT_ID, wrapped, ring.id],
  );
  expect(await run('keys', [], { ENCRYPTION_KEY: NEW })).toMatchObject({
    code: 2,
    output: expect.stringMatching(/^\w{16} {2}1 keys of subjects {2}1 secrets {2}unknown: /),
  });
  expect(await run('keys', ['rotate'], { ENCRYPTION_KEY: NEW })).toMatchObject({
    code: 1,
    output: expect.stringMatching(/^The key 1 of user-\S+ needs the ENCRYPTION_KEY with the id \w{16};.*\n$/),
  });
  expect(await run('keys', ['rotate'], { ENCRYPTION_KEY: NEW, ENCRYPTION_KEYS_ACCEPTED: OLD })).toMatchObject({
    code: 0,
    output: expect.stringMatching(
      /^Wrapped anew: keys of 1 subjects and 1 secrets, under (\w{16})\.\n\1 {2}1 keys of subjects {2}1 secrets {2}in use\n$/,
    ),
  });
});
