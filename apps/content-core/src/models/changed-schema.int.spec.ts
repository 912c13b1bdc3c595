import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { EventCodec, SubjectKeys } from '@atomo-cc/event-store';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import {
  boolean,
  date,
  datetime,
  defineSchema,
  enumeration,
  formerNames,
  integer,
  json,
  model,
  text,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { contentCoreMigrations } from '../migrations.js';
import { anApi, type Json, type TestApi } from '../testing/index.js';
import { loadSchema } from './load-schema.js';
import { applyMigration, createModelTables, planMigration, sentenceOf } from './model-tables.js';
import { modelsApi } from './models-api.js';

/** For a busy machine. */
jest.setTimeout(90_000);

const ROOT = resolve(__dirname, '../../../..');
const BLOG = join(ROOT, 'services/blog');
/** As an author changes the file: [what stood there, what stands there now]. */
const EDITS: [string, string][] = [
  ["'@atomo-cc/schema'", `'${join(ROOT, 'libs/schema/src/index.ts')}'`],
  // A new field, and a new name for an old one.
  ['    summary: text().max(500)', '    subtitle: text().max(200),\n    summary: text().max(20)'],
  ["'homepage'", "'website'"],
  ['    homepage: url(),', "    website: url().formerly('homepage'),"],
  // One that is no longer declared, and one that is demanded of records which lack it.
  ['    about: richText().max(5_000),\n', ''],
  [", 'about'", ''],
  [
    '    name: text().max(60).required(),',
    '    name: text().max(60).required(),\n    colour: text().max(20).required(),',
  ],
];

const folder = mkdtempSync(join(tmpdir(), 'blog-'));
let database: TestDatabase;
let first: SchemaDefinition;
let second: SchemaDefinition;
let api: TestApi | undefined;

beforeAll(async () => {
  database = await aDatabase(contentCoreMigrations);
  first = await loadSchema(BLOG);
  let changed = readFileSync(join(BLOG, 'schema.ts'), 'utf8');
  for (const [before, after] of EDITS) {
    expect(changed).toContain(before);
    changed = changed.replaceAll(before, after);
  }
  writeFileSync(join(folder, 'schema.ts'), changed);
  second = await loadSchema(folder);
});
afterAll(async () => {
  await api?.close();
  await database?.drop();
  rmSync(folder, { recursive: true, force: true });
});

/** What content-core does at its start, as far as it has to do with models. */
async function boot(schema: SchemaDefinition): Promise<{ readonly drift: readonly string[] }> {
  const report = await createModelTables(database.url, schema);
  await api?.close();
  const codec = new EventCodec(
    new SubjectKeys('the encryption key of these tests'),
    ATOMO_EVENTS.withFormerNames(formerNames(schema)),
  );
  api = await anApi([modelsApi(schema, database.app, { codec })]);
  return report;
}
const data = (query: string, variables: Record<string, unknown> = {}): Promise<Json> => api!.data(query, variables);

const BODY = [
  { type: 'Columns', left: [{ type: 'Quote', text: 'Deep' }], right: [{ type: 'Paragraph', text: 'Right' }] },
  { type: 'Heading', text: 'End', level: 3 },
];

test('a blog with data in it goes over to its next version, and loses nothing that nobody has allowed', async () => {
  await boot(first);
  const { createAuthor: author } = await data(
    'mutation { createAuthor(input: {name: "Ada", email: "ada@example.com", homepage: "https://ada.example/", about: "Counts."}) { id } }',
  );
  const { createTags: tags } = await data(
    'mutation { createTags(inputs: [{name: "Sea"}, {name: "See", language: de}]) { nodes { id slug } } }',
  );
  const { createPost: post } = await data('mutation ($i: CreatePostInput!) { createPost(input: $i) { id slug } }', {
    i: {
      title: 'Lighthouses',
      summary: 'Much longer than the next version allows.',
      authorId: author.id,
      body: BODY,
      tagIds: tags.nodes.map(({ id }: Json) => id),
    },
  });
  // The same slug in another language, and not twice in one.
  const again = (language: string) =>
    api!.ask(
      `mutation { createPost(input: {title: "Lighthouses", language: ${language}, authorId: "${author.id}"}) { slug } }`,
    );
  expect((await again('de')).data).toEqual({ createPost: { slug: post.slug } });
  expect((await again('en')).errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);

  // All that stands against it is told at once, with what it costs and how it is allowed; nothing is changed.
  const refused = await boot(second).catch((error: unknown) => error as { code: string; message: string });
  expect(refused).toMatchObject({ code: 'SCHEMA_NEEDS_MIGRATION' });
  const { message } = refused as { message: string };
  expect(message).toMatch(/Post\.summary: .*1 row has values .*--allow /);
  expect(message).toMatch(/Tag\.colour: .*2 rows have none.*--allow /);
  expect(await data(`{ author(id: "${author.id}") { homepage about } }`)).toEqual({
    author: { homepage: 'https://ada.example/', about: 'Counts.' },
  });
  const { steps, left } = await planMigration(database.url, second);
  const planned = [...steps, ...left].map(sentenceOf);
  expect(planned).toEqual(
    expect.arrayContaining([
      expect.stringMatching(/^Author\.homepage: rename it to website/),
      expect.stringMatching(/^Post\.subtitle: /),
      expect.stringMatching(/^Author\.about: .*1 row loses its value.*--allow drop:Author\.about/),
    ]),
  );

  // Allowed by name, by several who start at once.
  const allowed = [...message.matchAll(/--allow (\S+?)\.?(?=\s|$)/g)].map(([, name]) => name!);
  expect(allowed).toHaveLength(2);
  await Promise.all([1, 2, 3].map(() => applyMigration(database.url, second, allowed)));
  expect(await boot(second)).toMatchObject({ drift: [] });

  // All values are there, under their new names, in the past as well.
  const read = await data(
    `query ($author: ID!, $post: ID!) {
      author(id: $author) { name website }
      authorHistory(id: $author) { nodes { record { website } changes { field after } } }
      post(id: $post) { slug subtitle summary body tags(orderBy: [{ slug: ASC }]) { nodes { name slug } } }
    }`,
    { author: author.id, post: post.id },
  );
  expect(read.author).toEqual({ name: 'Ada', website: 'https://ada.example/' });
  expect(read.authorHistory.nodes).toMatchObject([{ record: { website: 'https://ada.example/' } }]);
  expect(read.authorHistory.nodes[0].changes).toContainEqual({ field: 'website', after: 'https://ada.example/' });
  expect(read.post).toMatchObject({ slug: 'lighthouses', subtitle: null, body: BODY });
  expect(read.post.tags.nodes).toEqual([
    { name: 'Sea', slug: 'sea' },
    { name: 'See', slug: 'see' },
  ]);
  // What is written from now on meets the new rules.
  const { errors } = await api!.ask('mutation { createTag(input: {name: "Red"}) { id } }');
  expect(errors).toMatchObject([{ message: expect.stringContaining('colour') }]);

  // What is declared no longer is still in the database, until it is dropped by name.
  const about = () => database.asOwner<{ about: string }>('select about from model_author');
  expect(await about()).toEqual([{ about: 'Counts.' }]);
  await applyMigration(database.url, second, ['drop:Author.about']);
  await expect(about()).rejects.toThrow(/about/);

  // What somebody else has taken away is told, and made again.
  const [{ name }] = (await database.asOwner<{ name: string }>(
    `select indexname as name from pg_indexes where tablename = 'model_post' and indexname like 'uq_post_%' limit 1`,
  )) as [{ name: string }];
  await database.asOwner(`drop index "${name}"`);
  expect((await boot(second)).drift).toEqual([expect.stringContaining('Post')]);
  expect((await boot(second)).drift).toEqual([]);
});

test('what was written under another type or word is read in the types of today, in the past too', async () => {
  const schemaOf = (fields: Parameters<typeof model>[0]['fields']) =>
    defineSchema({ models: { Box: model({ fields }) } });
  const before = schemaOf({
    size: integer(),
    code: text(),
    shut: text(),
    data: json(),
    since: datetime(),
    seen: datetime(),
    kind: enumeration('Tin', 'Wood'),
  });
  const after = schemaOf({
    size: text(),
    code: integer(),
    shut: boolean(),
    data: text(),
    since: date(),
    seen: text(),
    kind: enumeration('Tin'),
  });
  await boot(before);
  const at = '2026-11-21T07:25:18.120Z';
  const written = { size: 3, code: '12', shut: 'no', data: { a: [1] }, since: at, seen: at, kind: 'Wood' };
  const { createBox: box } = await data('mutation ($i: CreateBoxInput!) { createBox(input: $i) { id } }', {
    i: { ...written, code: 'x' },
  });
  await data('mutation ($id: ID!) { updateBox(id: $id, input: { code: "12" }) { id } }', box);
  const allowed = ['code', 'shut', 'data', 'since', 'seen'].map((name) => `type:Box.${name}`);
  await applyMigration(database.url, after, [...allowed, 'narrow:Box.kind']);
  await boot(after);

  const then = { size: '3', code: 12, shut: false, since: '2026-11-21', seen: at, kind: 'Wood' };
  const read = await data(
    `query ($id: ID!) {
      box(id: $id) { size code shut since seen kind }
      boxes { nodes { id k: kind } }
      boxHistory(id: $id) { nodes { record { size code shut data since seen kind } changes { field after } } }
    }`,
    box,
  );
  expect(read.box).toEqual(then);
  expect(read.boxes.nodes).toEqual([{ id: box.id, k: 'Wood' }]);
  // Of "x" no number can be made.
  expect(read.boxHistory.nodes.map(({ record }: Json) => record)).toEqual([
    { ...then, data: '{"a":[1]}' },
    { ...then, data: '{"a":[1]}', code: null },
  ]);
  expect(read.boxHistory.nodes[1].changes).toContainEqual({ field: 'code', after: 'x' });
  await data('mutation ($id: ID!) { updateBox(id: $id, input: { size: "4", kind: Tin }) { kind } }', box);
  const restore = (version: number) =>
    api!.ask(`mutation { restoreBox(id: "${box.id}", version: ${version}) { size code shut } }`);
  expect((await restore(1)).errors).toMatchObject([{ message: expect.stringContaining('code is no whole number') }]);
  expect((await restore(2)).errors).toMatchObject([{ message: expect.stringContaining('kind is none of Tin') }]);
  await data('mutation ($id: ID!) { updateBox(id: $id, input: { shut: true }) { kind } }', box);
  expect((await restore(3)).data).toEqual({ restoreBox: { size: '4', code: 12, shut: false } });
});
