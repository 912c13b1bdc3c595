import { resolve } from 'node:path';
import { EventCodec, eventStoreMigrations, SubjectKeys } from '@atomo-cc/event-store';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { uuidv7 } from '@atomo-cc/kernel';
import type { SchemaDefinition } from '@atomo-cc/schema';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { anApi, aPrincipal, SHOP_TENANTS, type TestApi } from '../testing/index.js';
import { RecordCommands } from './commands.js';
import { loadSchema } from './load-schema.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

const [TENANT, OTHER] = SHOP_TENANTS;
const context = { principal: aPrincipal(TENANT), requestId: uuidv7() };

const codec = new EventCodec(new SubjectKeys('the key of these tests'), ATOMO_EVENTS);

/** For a busy machine. */
jest.setTimeout(60_000);

let blog: SchemaDefinition;
let database: TestDatabase;
let api: TestApi;

beforeAll(async () => {
  blog = await loadSchema(resolve(__dirname, '../../../../services/blog'));
  database = await aDatabase(eventStoreMigrations);
  await createModelTables(database.url, blog);
  api = await anApi([modelsApi(blog, database.app, { codec })]);
});

afterAll(async () => {
  await api?.close();
  await database?.drop();
});

const modelOf = (name: string) => blog.models.find((model) => model.name === name)!;
const AUTHOR = 'mutation ($input: CreateAuthorInput!) { createAuthor(input: $input) { id email } }';
const create = (commands: RecordCommands, model: string, input: Record<string, unknown>) =>
  commands.create({ model: modelOf(model), input, idempotencyKey: null, context });
const counts = async () => {
  const [found] = await database.asOwner<{ events: number; rows: number }>(
    `select (select count(*)::int from event_log) as events,
       (select sum(n)::int from (select count(*) as n from model_author union all select count(*) from model_comment
         union all select count(*) from model_post) x) as rows`,
  );
  return found!;
};

test('a value that is taken is told at its field, in words without a table, and stores nothing', async () => {
  await api.data(AUTHOR, { input: { name: 'Ada', email: 'ada@example.com' } });
  const before = await counts();
  const { errors } = await api.ask(AUTHOR, { input: { name: 'Eve', email: 'Ada@example.com' } });
  expect(errors).toMatchObject([
    {
      message: 'email: another Author has this value already.',
      path: ['createAuthor'],
      extensions: {
        code: 'VALIDATION_ERROR',
        faults: [{ path: 'email', message: 'email: another Author has this value already.' }],
      },
    },
  ]);
  expect(JSON.stringify(errors)).not.toMatch(/uq_|model_|tenant|constraint|example\.com/);
  expect(api.logged).toEqual([]);
  expect(await counts()).toEqual(before);
  // Another tenant's values are nobody's business here.
  await api.data(AUTHOR, { input: { name: 'Ada', email: 'ada@example.com' } }, OTHER);
});

test('of many commands that share a transaction those that break a rule fail alone', async () => {
  const commands = new RecordCommands(blog, database.app, { codec });
  await create(commands, 'Author', { name: 'Old', email: 'old@example.com' });
  const before = await counts();
  const emails = Array.from({ length: 40 }, (_, n) =>
    n % 10 === 3 ? 'old@example.com' : n === 17 || n === 28 ? 'both@example.com' : `new${n}@example.com`,
  );
  const results = await Promise.allSettled(
    emails.map((email, n) => create(commands, 'Author', { name: `Author ${n}`, email })),
  );
  const failed = results.flatMap((result, n) => (result.status === 'rejected' ? [{ n, reason: result.reason }] : []));
  expect(failed.map(({ n }) => n)).toEqual([3, 13, 23, 28, 33]);
  for (const { reason } of failed) {
    expect(reason).toMatchObject({ code: 'VALIDATION_ERROR', details: { faults: [{ path: 'email' }] } });
  }
  expect(await counts()).toEqual({ events: before.events + 35, rows: before.rows + 35 });
});

test('a value that one command gives up may be taken by the next, also in one transaction', async () => {
  const commands = new RecordCommands(blog, database.app, { codec });
  const first = await create(commands, 'Author', { name: 'First', email: 'place@example.com' });
  const second = await create(commands, 'Author', { name: 'Second', email: 'second@example.com' });
  const update = (id: string, email: string) =>
    commands.update({
      model: modelOf('Author'),
      id,
      input: { email },
      expectedVersion: null,
      idempotencyKey: null,
      context,
    });
  await Promise.all([update(first.id, 'elsewhere@example.com'), update(second.id, 'place@example.com')]);
  await Promise.all([update(second.id, 'third@example.com'), update(first.id, 'place@example.com')]);
  const rows = await database.asOwner('select email from model_author where id = any($1) order by email', [
    [first.id, second.id],
  ]);
  expect(rows).toEqual([{ email: 'place@example.com' }, { email: 'third@example.com' }]);
});

test('values that are unique together have the declared words, at each of their fields', async () => {
  const commands = new RecordCommands(blog, database.app, { codec });
  const { id: authorId } = await create(commands, 'Author', { name: 'Poe', email: 'poe@example.com' });
  const { id: postId } = await create(commands, 'Post', { title: 'Hello', authorId });
  const comment = (email: string, spam: boolean) =>
    create(commands, 'Comment', { text: 'Buy now', name: 'Bot', email, postId, spam });
  await comment('bot@example.com', true);
  await comment('bot@example.com', false);
  await expect(comment('bot@example.com', true)).rejects.toMatchObject({
    code: 'VALIDATION_ERROR',
    message: 'This was reported already.',
    details: {
      faults: [
        { path: 'postId', message: 'This was reported already.' },
        { path: 'email', message: 'This was reported already.' },
      ],
    },
  });
  // A slug is unique within its language.
  await create(commands, 'Post', { title: 'Hello', language: 'de', authorId });
  await expect(create(commands, 'Post', { title: 'Hello', authorId })).rejects.toMatchObject({
    details: { faults: [{ path: 'language' }, { path: 'slug' }] },
  });
});

test('a check that the database holds is told in its words, and one that is new to this process without its own', async () => {
  const commands = new RecordCommands(blog, database.app, { codec });
  const { id: authorId } = await create(commands, 'Author', { name: 'Mary', email: 'mary@example.com' });
  const unchecked = (message: string, checks: 'none' | 'all') =>
    new RecordCommands(
      {
        ...blog,
        models: blog.models.map((model) =>
          model.name === 'Post' && checks === 'none' ? { ...model, checks: [] } : model,
        ),
      },
      database.app,
      { codec },
    ).create({
      // The command itself does not know the check, so that it is the database which meets it.
      model: { ...modelOf('Post'), checks: [] },
      input: { title: message, stage: 'Published', authorId },
      idempotencyKey: null,
      context,
    });
  await expect(unchecked('known', 'all')).rejects.toMatchObject({
    code: 'VALIDATION_ERROR',
    message: 'A published post has a moment of publication.',
    details: { faults: [{ path: 'stage' }] },
  });
  await expect(unchecked('strange', 'none')).rejects.toMatchObject({
    code: 'VALIDATION_ERROR',
    message: 'The Post breaks a rule that was declared a moment ago.',
  });
});
