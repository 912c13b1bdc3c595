import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { makeThrowAwayFolder } from './throw-away.js';

/** The command as users run it; `npm test` builds it before. */
const COMMAND = path.resolve('tools/local/dist/tenants.js');
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

async function tenants(...args: string[]) {
  const child = spawn(process.execPath, [COMMAND, ...args], {
    env: { ...process.env, DATABASE_URL: database.url, ATOMO_HOME: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, output };
}

test('makes, lists and suspends tenants, and deletes none whose slug was not typed', async () => {
  expect(await tenants('create', 'Acme Europe', '--plan', 'team')).toMatchObject({
    code: 0,
    output: expect.stringMatching(/^Made \S{36} {2}acme-europe {2}team {2}"Acme Europe"\n$/),
  });
  expect(await tenants('suspend', 'acme-europe', '--reason', 'unpaid')).toMatchObject({ code: 0 });
  expect(await tenants('delete', 'acme-europe')).toMatchObject({
    code: 1,
    output: 'Nothing was deleted: say --confirm and the slug of the tenant.\n',
  });
  const { output } = await tenants();
  expect(output.split('\n').map((line) => line.slice(38))).toEqual([
    'default  enterprise  "Default"',
    expect.stringMatching(/^acme-europe {2}team {2}"Acme Europe", suspended since 20/),
    '',
  ]);
});

test('tells what a plan allows and what is used of it, and sets limits for one tenant', async () => {
  await tenants('create', 'Small', '--plan', 'free');
  expect(await tenants('limit', 'small', 'users=40', '--reason', 'a fair')).toMatchObject({
    code: 0,
    output: expect.stringMatching(
      /^small, plan free\n.*used +reserved +limit\nusers +0 +0 +40 {2}set for this tenant\napiTokens +0 +0 +2\nimportedRecords +0 +0 +10000 {2}renews .*\nuploadedBytes +0 +0 +1073741824 {2}renews .*\nrequestsPerMinute +0 +300\n/,
    ),
  });
  expect(await tenants('limit', 'small', 'users=-1')).toMatchObject({
    code: 1,
    output: expect.stringMatching(/^users is a whole number from 0 on.*\n$/),
  });
});

test.each([
  [['explode'], /^Say what to do: .*--help/],
  [['suspend'], /^Say what to do: .*--help/],
  [['suspend', 'acme', '--plan', 'team'], /^--plan is nothing for suspend/],
])('%j is refused with one sentence', async (args, sentence) => {
  const { code, output } = await tenants(...args);
  expect({ code, lines: output.trim().split('\n').length }).toEqual({ code: 1, lines: 1 });
  expect(output).toMatch(sentence);
});
