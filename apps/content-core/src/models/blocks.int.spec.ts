import { resolve } from 'node:path';
import { EventCodec, SubjectKeys } from '@atomo-cc/event-store';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { uuidv7 } from '@atomo-cc/kernel';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { contentCoreMigrations } from '../migrations.js';
import { anApi, type Json, type TestApi } from '../testing/index.js';
import { loadSchema } from './load-schema.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

let database: TestDatabase;
let api: TestApi;

beforeAll(async () => {
  const schema = await loadSchema(resolve(__dirname, '../../../../services/blog'));
  database = await aDatabase(contentCoreMigrations);
  await createModelTables(database.url, schema);
  api = await anApi([
    modelsApi(schema, database.app, {
      codec: new EventCodec(new SubjectKeys('the key of these tests'), ATOMO_EVENTS),
    }),
  ]);
});

/** For a busy machine. */
jest.setTimeout(60_000);

afterAll(async () => {
  await api?.close();
  await database?.drop();
});

const data = (query: string, variables = {}): Promise<Json> => api.data(query, variables);

test('blocks are read by their types, through all levels, in their order, from a list and from the answer of a mutation', async () => {
  const author = await data('mutation ($i: CreateAuthorInput!) { createAuthor(input: $i) { id } }', {
    i: { name: 'Ada', email: `${uuidv7()}@example.com` },
  });
  const inner = { type: 'Columns', left: [{ type: 'Quote', text: 'Deep' }], right: [] };
  const body = [
    { type: 'Heading', text: 'Hello', level: 3 },
    { type: 'Columns', left: [inner], right: [{ type: 'Paragraph', text: 'Right' }] },
    { type: 'Paragraph', text: 'End' },
  ];
  const typed = `bodyBlocks {
    ... on HeadingBlock { type text level }
    ... on ParagraphBlock { type paragraph: text }
    ... on ColumnsBlock { type left { ... on ColumnsBlock { left { ... on QuoteBlock { text source } } } } right { __typename } }
  }`;
  const expected = [
    { type: 'Heading', text: 'Hello', level: 3 },
    { type: 'Columns', left: [{ left: [{ text: 'Deep', source: null }] }], right: [{ __typename: 'ParagraphBlock' }] },
    { type: 'Paragraph', paragraph: 'End' },
  ];
  const { createPost } = await data(`mutation ($i: CreatePostInput!) { createPost(input: $i) { id body ${typed} } }`, {
    i: { title: 'Blocks', authorId: author.createAuthor.id, body },
  });
  expect(createPost.bodyBlocks).toEqual(expected);
  expect(createPost.body).toMatchObject(body);
  const { posts } = await data(
    `query ($id: ID) { posts(where: { id: { equals: $id } }) { nodes { body ${typed} } } }`,
    {
      id: createPost.id,
    },
  );
  expect(posts.nodes).toEqual([{ body: createPost.body, bodyBlocks: expected }]);
});

test('a block whose type is gone from the schema is told as it was written', async () => {
  await database.system.transaction((tx) =>
    tx.execute(`update model_post set body = '[{"type": "Poll", "votes": 3}, {"type": "Paragraph", "text": "Still"}]'`),
  );
  const query = `{ posts { nodes { bodyBlocks {
    ... on UnknownBlock { type value }
    ... on ParagraphBlock { text }
  } } } }`;
  const blocks = [{ type: 'Poll', value: { type: 'Poll', votes: 3 } }, { text: 'Still' }];
  expect((await data(query)).posts.nodes).toEqual([{ bodyBlocks: blocks }]);
});
