import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { makeThrowAwayFolder } from './throw-away.js';

/** The command as users run it; `npm test` builds it before. */
const COMMAND = path.resolve('tools/local/dist/user.js');
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

async function user(args: readonly string[], input = '') {
  const child = spawn(process.execPath, [COMMAND, ...args], {
    env: {
      ...process.env,
      DATABASE_URL: database.url,
      ATOMO_HOME: folder,
      ATOMO_SERVICE: 'services/crm',
      ENCRYPTION_KEY: 'a key of this test, long enough for AES',
    },
  });
  child.stdin.end(input);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, output };
}

test('makes a user in a database that has nothing yet, shows a password once, and changes only what is named', async () => {
  const made = await user(['--email', 'Ada@Example.com', '--role', 'Manager', '--reason', 'starts on Monday']);
  expect(made).toMatchObject({
    code: 0,
    output: expect.stringMatching(/^Made ada@example.com \(ada\), Manager, tenant /),
  });
  expect(made.output).toMatch(/^The password, which is shown only now: [\w-]{24}$/m);
  const again = await user(['--email', 'ada@example.com', '--role', 'Manager']);
  expect(again.output).toMatch(/^Nothing to change: ada@example.com \(ada\), Manager, tenant \S+\.\n$/);
  const changed = await user(['--email', 'ada@example.com', '--disable', '--password', '-'], 'a long passphrase\n');
  expect(changed.output).toMatch(/^Changed ada@example.com \(ada\), Manager, disabled, tenant \S+\.\n$/);
  const events = await database.asOwner(`select type, metadata ->> 'actor' as actor, metadata ->> 'reason' as reason
    from event_log order by position`);
  const actor = expect.stringMatching(/^operator:\w+/);
  expect(events).toEqual([
    { type: 'access.userCreated', actor, reason: 'starts on Monday' },
    { type: 'access.userChanged', actor, reason: null },
    { type: 'access.passwordReset', actor, reason: null },
  ]);
});

test.each([
  [['--email', 'eve@example.com', '--role', 'Root'], /^There is no role "Root"\. There are Admin, Manager, Sales, /],
  [['--role', 'Viewer'], /Say who: .*--help/],
  [['--email', 'eve@example.com', '--role', 'Viewer', '--tenant', 'acme'], /is no id such as/],
  [['--email', 'eve@example.com', '--enable', '--disable'], /opposites/],
])('%j is refused with one sentence', async (args, sentence) => {
  const { code, output } = await user(args);
  expect({ code, lines: output.trim().split('\n').length }).toEqual({ code: 1, lines: 1 });
  expect(output).toMatch(sentence);
});
