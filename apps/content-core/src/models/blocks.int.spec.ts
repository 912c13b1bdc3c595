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

test('a search looks for every word in the searchable texts and blocks', async () => {
  const { createAuthor } = await data('mutation ($i: CreateAuthorInput!) { createAuthor(input: $i) { id } }', {
    i: { name: 'Grace 100%', email: `${uuidv7()}@example.com` },
  });
  const post = (title: string, summary: string | null, text: string) => ({
    title,
    summary,
    authorId: createAuthor.id,
    body: [{ type: 'Columns', left: [{ type: 'Quote', text, source: 'https://sea.example/' }], right: [] }],
  });
  await data('mutation ($i: [CreatePostInput!]!) { createPosts(inputs: $i) { count } }', {
    i: [
      post('Lighthouses', 'At the shore', 'Fresnel lenses'),
      post('Boats', null, 'How to row'),
      post('Fresnel', 'A portrait', 'born in Broglie'),
    ],
  });
  const found = async (search: string | null, more = {}) => {
    const where = { search, authorId: { equals: createAuthor.id }, ...more };
    const { posts } = await data(
      'query ($where: PostWhere) { posts(where: $where, orderBy: [{ title: ASC }]) { totalCount nodes { title } } }',
      { where },
    );
    expect(posts.totalCount).toBe(posts.nodes.length);
    return posts.nodes.map(({ title }: { title: string }) => title);
  };
  const all = ['Boats', 'Fresnel', 'Lighthouses'];
  expect(await found('fresnel')).toEqual(['Fresnel', 'Lighthouses']);
  // Its words may stand in different fields, and within longer ones.
  expect(await found('  shore LENS\tlight ')).toEqual(['Lighthouses']);
  expect(await found('fresnel portrait lenses')).toEqual([]);
  for (const none of ['', '   ', null]) expect(await found(none)).toEqual(all);
  expect(await found('sea.example')).toEqual(all);
  // Neither the names of types nor of fields are texts, and no sign has a meaning.
  for (const sign of ['Quote', 'Columns', 'source', 'left', '%', '_ow', '\\', "'", '"text"', '$.**'])
    expect([sign, await found(sign)]).toEqual([sign, []]);
  expect(await found('row', { not: { search: 'how' } })).toEqual([]);
  expect(await found(null, { or: [{ search: 'portrait' }, { search: 'how row' }] })).toEqual(['Boats', 'Fresnel']);
  const authors = '{ authors(where: { search: "100%" }) { nodes { name } } }';
  expect((await data(authors)).authors.nodes).toEqual([{ name: 'Grace 100%' }]);
  const related = `{ posts(where: { author: { is: { search: "grace" } }, search: "boats" }) { nodes { title } } }`;
  expect((await data(related)).posts.nodes).toEqual([{ title: 'Boats' }]);
  const { errors } = await api.ask('{ tags(where: { search: "a" }) { totalCount } }');
  expect(errors?.[0]?.message).toMatch(/"search" is not defined/);
  const many = Array.from({ length: 11 }, (_, at) => `w${at}`).join(' ');
  const refused = await api.ask('query ($s: String) { posts(where: { search: $s }) { totalCount } }', { s: many });
  expect(refused.errors?.[0]?.extensions).toMatchObject({ code: 'QUERY_TOO_COMPLEX', limit: 'MAX_SEARCH_WORDS' });
  const broken = await api.ask('query ($s: String) { posts(where: { search: $s }) { totalCount } }', { s: 'a\u0000b' });
  expect(broken.errors?.[0]?.extensions).toMatchObject({ code: 'VALIDATION_ERROR' });
});
