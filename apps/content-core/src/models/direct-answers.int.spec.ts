import { eventStoreMigrations } from '@atomo-cc/event-store';
import {
  belongsTo,
  blocks,
  block,
  boolean,
  date,
  datetime,
  decimal,
  defineSchema,
  enumeration,
  geoPoint,
  hasMany,
  integer,
  json,
  number,
  template,
  text,
} from '@atomo-cc/schema';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { DirectOperation } from '../api/index.js';
import { anApi, callers, type TestApi } from '../testing/index.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

/** For a busy machine. */
jest.setTimeout(60_000);

const ALL = defineSchema({
  models: {
    Owner: {
      fields: { name: text().required(), over: belongsTo('Owner'), things: hasMany('Thing') },
      access: { read: { everyone: true } },
    },
    Thing: {
      fields: {
        name: text().max(100).index(),
        count: integer(),
        price: decimal(38, 9),
        size: number(),
        isGood: boolean(),
        day: date(),
        at: datetime(),
        data: json(),
        place: geoPoint(),
        kind: enumeration('Plain', 'Fancy'),
        parts: blocks([block('Line', { fields: { said: text() } })]),
        owner: belongsTo('Owner'),
        secret: text(),
      },
      computed: { label: template('{name} of {kind}') },
      access: { read: { Viewer: ['id', 'name', 'owner'] } },
    },
  },
});

const WHOLE =
  'id version createdAt updatedAt name count price size isGood day at data place kind parts label ownerId owner { __typename name id over { name } }';

let database: TestDatabase;
let api: TestApi;
let ids: string[];

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  await createModelTables(database.url, ALL);
  api = await anApi([modelsApi(ALL, database.app)]);
  const boss = await create('Owner', { name: 'Boß "the" \\ 🐝 \u2028' });
  const owner = await create('Owner', { name: 'b', overId: boss });
  ids = [
    await create('Thing', {
      name: 'a',
      count: -5,
      price: '12345678901234567890.123456789',
      size: 1e21,
      isGood: false,
      day: '2024-02-29',
      at: '2026-01-02T03:04:05.600+02:00',
      data: { b: [1, null, { c: '"' }], a: 0.1 },
      place: { lat: 1.5, lng: -2 },
      kind: 'Fancy',
      parts: [{ type: 'Line', said: 'x' }],
      ownerId: owner,
      secret: 's',
    }),
    await create('Thing', { name: 'b', size: 5e-324, ownerId: boss }),
    await create('Thing', { name: null }),
    await create('Thing', { name: 'c' }),
  ];
});

afterEach(() => {
  callers.role = 'Admin';
  jest.restoreAllMocks();
});

afterAll(async () => {
  await api?.close();
  await database?.drop();
});

async function create(model: string, input: object): Promise<string> {
  const mutation = `mutation ($input: Create${model}Input!) { made: create${model}(input: $input) { id } }`;
  return (await api.data(mutation, { input })).made.id;
}

/** Asks in a document that is one field, and in one that has another beside it, which is executed. */
async function both(document: string, variables: Record<string, unknown> = {}) {
  const answers = jest.spyOn(DirectOperation.prototype, 'answer');
  const direct = await api.ask(document, variables);
  const isDirect = (await answers.mock.results[0]?.value) != null;
  answers.mockRestore();
  const executed = await api.ask(document.replace(/^(query[^{]*)?\{/, '$&__typename '), variables);
  if (executed.data) delete executed.data.__typename;
  const written = ({ status, data, errors }: typeof direct) =>
    JSON.stringify([
      status,
      data,
      // Where it stands in the document is another place in another document.
      errors?.map(({ message, path, extensions }) => ({ message, path, extensions })),
    ]);
  return { isDirect, direct: written(direct), executed: written(executed), errors: direct.errors };
}

test.each<[string, string, boolean]>([
  ['a record of all kinds of values', `{ thing(id: "$0") { ${WHOLE} } }`, true],
  ['a record with few', `{ thing(id: "$2") { ${WHOLE} } }`, true],
  ['nothing but its type', `{ thing(id: "$0") { __typename } }`, true],
  ['an alias of the field itself', `{ other: thing(id: "$0") { id } }`, true],
  ['no record', `{ thing(id: "018f0000-0000-7000-8000-000000000001") { id } }`, true],
  ['no id', `{ thing(id: "x") { id } }`, true],
  ['a page', `{ things(first: 3) { nodes { ${WHOLE} } } }`, true],
  [
    'all of a page',
    '{ things(first: 2) { totalCount __typename pageInfo { endCursor hasNextPage __typename startCursor hasPreviousPage } edges { cursor __typename node { name id } } } }',
    true,
  ],
  [
    'a page that goes on among those without a value',
    '{ things(orderBy: [{ name: ASC }], first: 1, last: null) { edges { node { id } cursor } } }',
    true,
  ],
  ['the end of a list', '{ things(last: 2) { edges { cursor } pageInfo { hasPreviousPage } nodes { id } } }', true],
  ['an empty page with its total', '{ things(where: { name: { equals: "z" } }) { nodes { id } totalCount } }', true],
  ['a total alone', '{ things { totalCount } }', true],
  [
    'fragments and what stands there twice',
    'query { things(first: 2) { ...P nodes { name } ... on ThingConnection { nodes { owner { id } } } } } fragment P on ThingConnection { nodes { id owner { name } } }',
    true,
  ],
  ['nodes and edges with other fields', '{ things { nodes { id } edges { node { name } } } }', false],
  ['an alias below', '{ things { nodes { title: name } } }', false],
  ['a list below', '{ owners { nodes { name things { nodes { id } } } } }', false],
  ['blocks by their types', '{ things { nodes { id partsBlocks { ... on LineBlock { said } } } } }', false],
  ['a directive', '{ things { nodes { id name @skip(if: true) } } }', false],
  ['a page size that is refused', '{ things(first: 1000) { nodes { id } } }', true],
  ['a cursor that is refused', '{ things(after: "x") { nodes { id } } }', true],
])('%s is answered as it is when it is executed', async (_name, document, isDirect) => {
  const asked = await both(document.replaceAll(/\$(\d)/g, (_, n: string) => ids[Number(n)]!));
  expect(asked.direct).toBe(asked.executed);
  expect(asked.isDirect).toBe(isDirect);
});

test('variables are coerced for each request', async () => {
  const document =
    'query ($first: Int = 1, $where: ThingWhere) { things(first: $first, where: $where) { nodes { id } } }';
  for (const variables of [{}, { first: 2 }, { where: { count: { lt: 0 } } }, { first: 'x' }, { where: { no: 1 } }]) {
    const asked = await both(document, variables);
    expect(asked.direct).toBe(asked.executed);
  }
});

test('what fails is told like any other failure, and asked once', async () => {
  const read = jest.spyOn(AppDatabase.prototype, 'read').mockRejectedValue(new Error('select secret'));
  for (const document of ['{ things { nodes { id } } }', `{ thing(id: "${ids[0]}") { id } }`]) {
    read.mockClear();
    const { errors, data } = await api.ask(document);
    expect(errors).toMatchObject([{ path: [expect.any(String)], extensions: { code: 'INTERNAL_ERROR' } }]);
    expect(JSON.stringify(errors)).not.toContain('secret');
    expect(data).toEqual(document.startsWith('{ things') ? null : { thing: null });
    expect(read).toHaveBeenCalledTimes(1);
  }
});

test('a document is prepared for each role: what one may read another one asks for in vain', async () => {
  const document = '{ things { nodes { id name secret } } }';
  expect((await api.ask(document)).data.things.nodes[0]).toMatchObject({ secret: 's' });
  callers.role = 'Viewer';
  expect((await api.ask(document)).errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
  expect((await api.ask('{ things { nodes { id name } } }')).data.things.nodes).toHaveLength(4);
  callers.role = 'Admin';
  expect((await api.ask(document)).data.things.nodes[0]).toMatchObject({ secret: 's' });
});

test.each([
  [undefined, 'application/json; charset=utf-8'],
  ['application/json', 'application/json; charset=utf-8'],
  ['application/graphql-response+json, application/json', 'application/graphql-response+json; charset=utf-8'],
  [
    'application/json; charset=latin1, application/graphql-response+json',
    'application/graphql-response+json; charset=utf-8',
  ],
])('accepting %s it is written as %s', async (accept, type) => {
  const response = await fetch(api.url, {
    method: 'POST',
    headers: {
      authorization: `Bearer 00000000-0000-7000-8000-00000000000a`,
      'content-type': 'application/json',
      ...(accept && { accept }),
    },
    body: JSON.stringify({ query: '{ things(first: 1) { nodes { id } } }' }),
  });
  expect(response.headers.get('content-type')).toBe(type);
  expect(await response.json()).toEqual({ data: { things: { nodes: [{ id: ids[0] }] } } });
});
