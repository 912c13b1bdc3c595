import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { makeThrowAwayFolder } from './throw-away.js';

/** The command as users run it; `npm test` builds it before. */
const COMMAND = path.resolve('tools/local/dist/migrate.js');
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

/** Runs the command on a schema of one model, `Person`. */
function migrate(fields: string, ...args: string[]) {
  fs.writeFileSync(path.join(folder, 'schema.ts'), `export interface Person { ${fields} }\n`);
  return run([...args, '--service', folder]);
}

async function run(args: readonly string[], service?: string) {
  const child = spawn(process.execPath, [COMMAND, ...args], {
    env: { ...process.env, DATABASE_URL: database.url, ATOMO_HOME: folder, ATOMO_SERVICE: service },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, output };
}

test('a plan tells what is to be done, apply does it, and the codes say whether something is left', async () => {
  expect(await migrate('name?: string;', 'plan')).toMatchObject({
    code: 2,
    output: expect.stringContaining('Ready to be applied:\n  Person: make table model_person.'),
  });
  expect(await migrate('name?: string;', 'apply')).toMatchObject({ code: 0, output: expect.stringMatching(/^Done:/) });
  const nothing = { code: 0, output: 'Nothing to do: the database is as the schema declares it.\n' };
  expect(await migrate('name?: string;', 'apply')).toEqual(nothing);

  await database.asOwner(
    `insert into model_person (tenant_id, id, version, created_at, updated_at, name)
     values (gen_random_uuid(), gen_random_uuid(), 1, now(), now(), 'Ada')`,
  );
  expect(await migrate('fullName?: string;', 'apply')).toMatchObject({
    code: 1,
    output: expect.stringMatching(/^Nothing was changed\. .*say formerly\('name'\)/),
  });
  expect(await migrate('\n/** @formerly name */\nfullName?: string;', 'apply')).toMatchObject({ code: 0 });
  expect(await database.asOwner('select full_name from model_person')).toEqual([{ full_name: 'Ada' }]);
  expect(await migrate('age?: number;', 'apply')).toMatchObject({
    code: 2,
    output: expect.stringMatching(/Left as it is.*\n.*1 row .*--allow drop:Person\.fullName/),
  });
  expect(await migrate('age?: number;', 'apply', '--allow', 'drop:Person.fullName')).toMatchObject({ code: 0 });
  expect(await migrate('age?: number;', 'plan')).toEqual(nothing);
  expect(await migrate('age?: number;', 'sideways')).toMatchObject({
    code: 1,
    output: expect.stringContaining('--help'),
  });
});

test('what was started last is meant, unless another folder is named', async () => {
  fs.writeFileSync(path.join(folder, 'schema.ts'), 'export interface Robot { name: string }\n');
  fs.writeFileSync(path.join(folder, 'service.json'), JSON.stringify({ folder }));
  expect((await run(['plan'])).output).toContain('make table model_robot');
  expect((await run(['plan'], 'services/crm')).output).toContain('make table model_deal');
});
