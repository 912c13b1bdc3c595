import { resolve } from 'node:path';
import { projectionStatus, requestBuild } from '@atomo-cc/event-store';
import { uuidv7 } from '@atomo-cc/kernel';
import { linksOf } from '@atomo-cc/schema';
import { eventually, seeded } from '@atomo-cc/testing';
import { SHOP_TENANTS, type Json } from '../testing/index.js';
import { loadSchema } from './load-schema.js';
import { aSystem, type TestSystem } from './testing/system.js';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const [OURS, THEIRS] = SHOP_TENANTS;

/** For a busy machine. */
jest.setTimeout(90_000);

let system: TestSystem;

beforeAll(async () => {
  system = await aSystem(await loadSchema(resolve(__dirname, '../../../../services/blog')));
});

afterAll(() => system?.stop());

const POST = 'id version title createdAt updatedAt tags(orderBy: [{name: ASC}]) { nodes { id name } totalCount }';
const ask = (query: string, variables = {}, tenant = OURS) => system.api.ask(query, variables, tenant);
const data = (query: string, variables = {}, tenant = OURS): Promise<Json> => system.api.data(query, variables, tenant);
const anAuthor = async (tenant = OURS) =>
  (
    await data(
      'mutation ($input: CreateAuthorInput!) { createAuthor(input: $input) { id } }',
      { input: { name: 'Ada', email: `${uuidv7()}@example.com` } },
      tenant,
    )
  ).createAuthor.id as string;
const aTag = async (name: string, tenant = OURS) =>
  (
    await data(
      'mutation ($input: CreateTagInput!) { createTag(input: $input) { id } }',
      { input: { name: `${name} ${uuidv7()}` } },
      tenant,
    )
  ).createTag.id as string;
const createPost = `mutation ($input: CreatePostInput!) { createPost(input: $input) { ${POST} } }`;
const updatePost = `mutation ($id: ID!, $input: UpdatePostInput!, $version: Int) {
  updatePost(id: $id, input: $input, expectedVersion: $version) { ${POST} } }`;
const aPost = async (input: object): Promise<Json> =>
  (await data(createPost, { input: { title: `Post ${uuidv7()}`, ...input } })).createPost;
const tagsOf = (post: Json): string[] => post.tags.nodes.map(({ id }: Json) => id).toSorted();
const eventsOf = (id: string) =>
  system.database.asOwner<{ data: Record<string, unknown> }>(
    'select data from event_log where stream = $1 order by position',
    [`Post-${id}`],
  );

test('links are written with their record, read from both sides, and replaced as a whole', async () => {
  const [authorId, a, b, c] = [await anAuthor(), await aTag('a'), await aTag('b'), await aTag('c')];
  const post = await aPost({ authorId, tagIds: [c, a] });
  expect(tagsOf(post)).toEqual([a, c].sort());
  expect(post.tags.totalCount).toBe(2);
  expect((await eventsOf(post.id))[0]!.data).toMatchObject({ tagIds: [a, c].sort() });

  const changed = (await data(updatePost, { id: post.id, input: { tagIds: [b, c] } })).updatePost;
  expect([changed.version, tagsOf(changed)]).toEqual([2, [b, c].sort()]);
  expect((await eventsOf(post.id))[1]!.data).toEqual({ tagIds: [b, c].sort() });

  const { tag, posts } = await data(
    `query ($tag: ID!) { tag(id: $tag) { posts { nodes { id } } } posts(where: {tags: {some: {id: {equals: $tag}}}}) { nodes { id } } }`,
    { tag: c },
  );
  expect([tag.posts.nodes, posts.nodes]).toEqual([[{ id: post.id }], [{ id: post.id }]]);

  // The same in another order is the same; what is not given stays; an empty list and null are told apart.
  const again = (await data(updatePost, { id: post.id, input: { tagIds: [c, b], title: 'New' } })).updatePost;
  expect([again.version, tagsOf(again)]).toEqual([3, [b, c].sort()]);
  expect((await eventsOf(post.id))[2]!.data).toEqual({ title: 'New' });
  const none = (await data(updatePost, { id: post.id, input: { tagIds: [] } })).updatePost;
  expect([none.version, tagsOf(none)]).toEqual([4, []]);
  expect((await data(updatePost, { id: post.id, input: { tagIds: [] } })).updatePost.version).toBe(4);
  const { errors } = await ask(updatePost, { id: post.id, input: { tagIds: null } });
  expect(errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR', faults: [{ path: 'tagIds' }] } }]);
});

test('what is not there, is another tenant’s, or stands there twice is told, and nothing is written', async () => {
  const [authorId, mine, theirs] = [await anAuthor(), await aTag('mine'), await aTag('theirs', THEIRS)];
  const refused = async (tagIds: unknown, message: string) =>
    expect((await ask(createPost, { input: { title: 'No', authorId, tagIds } })).errors).toMatchObject([
      { message: expect.stringContaining(message), extensions: { code: 'VALIDATION_ERROR' } },
    ]);
  const unknown = uuidv7();
  await refused([mine, unknown], `tagIds: there is no Tag with the id ${unknown}.`);
  await refused([theirs], `tagIds: there is no Tag with the id ${theirs}.`);
  await refused([mine, mine], 'tagIds.1 stands there twice.');
  await refused(['nonsense'], 'tagIds.0 is no id of a Tag.');
  const { posts } = await data('{ posts(where: {title: {equals: "No"}}) { nodes { id } } }');
  expect(posts.nodes).toEqual([]);
});

test('history, restore and asOf have the links of each version', async () => {
  const [authorId, a, b] = [await anAuthor(), await aTag('a'), await aTag('b')];
  const post = await aPost({ authorId, tagIds: [a] });
  const second = (await data(updatePost, { id: post.id, input: { tagIds: [a, b] } })).updatePost;
  const third = (await data(updatePost, { id: post.id, input: { tagIds: [] } })).updatePost;

  const { postHistory } = await data(
    `query ($id: ID!) { postHistory(id: $id) { nodes { version changes { field before after } record { tagIds } } } }`,
    { id: post.id },
  );
  const [newest, middle, oldest] = postHistory.nodes;
  expect(newest).toEqual({
    version: 3,
    changes: [{ field: 'tagIds', before: [a, b].sort(), after: [] }],
    record: { tagIds: [] },
  });
  expect(middle.changes).toEqual([{ field: 'tagIds', before: [a], after: [a, b].sort() }]);
  expect(oldest.record).toEqual({ tagIds: [a] });

  const at = `query ($id: ID!, $tag: ID!, $asOf: DateTime) {
    post(id: $id, asOf: $asOf) { tags { nodes { id } } } tag(id: $tag, asOf: $asOf) { posts { nodes { id } } } }`;
  for (const [time, tags, posts] of [
    [post.updatedAt, [a], []],
    [second.updatedAt, [a, b].sort(), [{ id: post.id }]],
    [third.updatedAt, [], []],
  ]) {
    const found = await data(at, { id: post.id, tag: b, asOf: time });
    expect([tagsOf(found.post), found.tag.posts.nodes]).toEqual([tags, posts]);
  }

  const restored = (
    await data(`mutation ($id: ID!, $version: Int!) { restorePost(id: $id, version: $version) { ${POST} } }`, {
      id: post.id,
      version: 2,
    })
  ).restorePost;
  expect([restored.version, tagsOf(restored)]).toEqual([4, [a, b].sort()]);
});

test('a condition on links tells of the change that takes a record out of it', async () => {
  const [authorId, a, b] = [await anAuthor(), await aTag('a'), await aTag('b')];
  const post = await aPost({ authorId, tagIds: [a] });
  await data(updatePost, { id: post.id, input: { summary: 'still' } });
  await data(updatePost, { id: post.id, input: { tagIds: [b] } });
  // Nothing to who never had it: it did not match before either.
  await data(updatePost, { id: post.id, input: { tagIds: [] } });
  await data(updatePost, { id: post.id, input: { tagIds: [a] } });
  await data('query ($at: DateTime!) { posts(asOf: $at) { totalCount } }', { at: new Date().toISOString() });
  const told = await system.follow(
    `subscription ($where: PostWhere) { postChanged(after: "0", where: $where) { version changedFields post { id } } }`,
    { where: { tags: { some: { id: { equals: b } } } } },
    1,
  );
  expect(told).toEqual([{ version: 4, changedFields: ['tagIds'], post: null }]);
});

test(`links built anew from the log are those that the commands wrote, also one tenant’s alone (seed ${SEED})`, async () => {
  const random = seeded(SEED);
  const authorId = await anAuthor();
  const tags = await Promise.all(Array.from({ length: 6 }, (_, n) => aTag(`tag ${n}`)));
  const some = () => tags.filter(() => random() < 0.4);
  const posts = await Promise.all(Array.from({ length: 10 }, () => aPost({ authorId, tagIds: some() })));
  for (let n = 0; n < 30; n += 1) {
    const { id } = posts[Math.floor(random() * posts.length)];
    await Promise.all([
      data(updatePost, { id, input: { tagIds: some() } }),
      random() < 0.3 ? data(updatePost, { id, input: { summary: `${n}`, tagIds: some() } }) : null,
    ]);
  }
  const { differences, empty } = await system.rebuilt();
  expect(differences).toEqual([]);
  expect(empty).not.toContain('link_post_tags');

  const links = () => system.database.asOwner('select * from link_post_tags order by 1, 2, 3');
  const before = await links();
  // Somebody has broken one tenant's links by hand: lost one, made one up, and made one of a post that is none.
  await system.database.asOwner(
    'delete from link_post_tags where (owner_id, target_id) in (select owner_id, target_id from link_post_tags limit 3)',
  );
  for (const owner of [posts[0].id, uuidv7()]) {
    await system.database.asOwner('insert into link_post_tags values ($1, $2, $3)', [OURS, owner, uuidv7()]);
  }
  expect(await links()).not.toEqual(before);
  await requestBuild(system.database.system, { projection: 'rows-post', tenant: OURS, by: 'user:1', reason: 'a test' });
  await eventually('the tenant is built anew', async () => {
    await system.runner.look();
    const found = (await projectionStatus(system.database.system)).find(({ projection }) => projection === 'rows-post');
    return found!.builds.some(({ state }) => state === 'merged');
  });
  expect(await links()).toEqual(before);
});

test('every relation of the blog that owns links is written by its ids', async () => {
  const { __type } = await data('{ __type(name: "CreatePostInput") { inputFields { name } } }');
  const schema = await loadSchema(resolve(__dirname, '../../../../services/blog'));
  const inputs = schema.models.flatMap((model) => linksOf(model).map(({ input }) => input));
  expect(inputs).toEqual(['tagIds']);
  expect(__type.inputFields.map(({ name }: Json) => name)).toContain('tagIds');
});
