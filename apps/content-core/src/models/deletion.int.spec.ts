import { uuidv7 } from '@atomo-cc/kernel';
import { belongsTo, defineSchema, hasMany, manyToMany, model, number, text } from '@atomo-cc/schema';
import { openAppDatabase } from '@atomo-cc/platform/postgres';
import { eventually, seeded } from '@atomo-cc/testing';
import { aPrincipal, SHOP_TENANTS, type Json } from '../testing/index.js';
import { RecordCommands } from './commands.js';
import { MAX_RECORDS_PER_COMMAND } from './deletion.js';
import { aSystem, type TestSystem } from './testing/system.js';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const [OURS, THEIRS] = SHOP_TENANTS;

/** A house with every rule of what becomes of those that refer to a record. */
const OFFICE = defineSchema({
  models: {
    Firm: model({ fields: { name: text().max(200).required().unique(), people: hasMany('Person') } }),
    Person: model({
      plural: 'people',
      fields: {
        name: text().required().personal(),
        phone: text().personal(),
        rank: number(),
        firm: belongsTo('Firm'),
        boss: belongsTo('Person', { onDelete: 'setNull' }),
        tags: manyToMany('Tag'),
        badges: manyToMany('Badge', { onDelete: 'restrict' }),
        notes: hasMany('Note'),
      },
    }),
    Note: model({
      fields: { body: text().required(), person: belongsTo('Person', { onDelete: 'cascade' }).required() },
    }),
    Stroke: model({ fields: { note: belongsTo('Note', { onDelete: 'cascade' }), person: belongsTo('Person') } }),
    Tag: model({ fields: { name: text().required(), people: manyToMany('Person', { inverseOf: 'tags' }) } }),
    Badge: model({ fields: { name: text().required() } }),
    Draft: model({ softDelete: false, fields: { body: text().required().personal(), person: belongsTo('Person') } }),
  },
});

/** For a busy machine. */
jest.setTimeout(90_000);

let system: TestSystem;

beforeAll(async () => {
  system = await aSystem(OFFICE);
});

afterAll(() => system?.stop());

const ask = (query: string, variables = {}, tenant = OURS) => system.api.ask(query, variables, tenant);
const data = (query: string, variables = {}, tenant = OURS): Promise<Json> => system.api.data(query, variables, tenant);
const make = async (name: string, input: object): Promise<Json> =>
  (
    await data(`mutation ($input: Create${name}Input!) { it: create${name}(input: $input) { id version updatedAt } }`, {
      input,
    })
  ).it;
const aFirm = () => make('Firm', { name: `Firm ${uuidv7()}` });
const aPerson = (input: object = {}) => make('Person', { name: 'Ada', ...input });
const gone = (kind: 'delete' | 'purge' | 'restore', name: string) =>
  `mutation ($id: ID!, $version: Int, $key: String) {
    it: ${kind}${name}(id: $id, expectedVersion: $version, idempotencyKey: $key) { id version updatedAt deletedAt } }`;
const remove = async (name: string, id: string): Promise<Json> => (await data(gone('delete', name), { id })).it;
const restore = async (name: string, id: string): Promise<Json> => (await data(gone('restore', name), { id })).it;
const purge = async (name: string, id: string): Promise<Json> => (await data(gone('purge', name), { id })).it;
const refusal = async (query: string, variables: object) => {
  const { errors } = await ask(query, variables);
  return errors?.[0] && { ...errors[0].extensions, message: errors[0].message };
};
const person = async (id: string, fields = 'id') =>
  (await data(`query ($id: ID!) { person(id: $id) { ${fields} } }`, { id })).person;
const eventsOf = async (stream: string) =>
  (
    await system.database.asOwner<{ type: string; data: object }>(
      'select type, data from event_log where stream = $1 order by stream_version',
      [stream],
    )
  ).map(({ type, data: said }) => [type.split('.')[1], said]);
const typesOf = async (stream: string) => (await eventsOf(stream)).map(([type]) => type);
const caughtUp = () =>
  data('query ($at: DateTime!) { firms(asOf: $at) { totalCount } }', { at: new Date().toISOString() });

describe('a deleted record', () => {
  test('is absent wherever it is not asked for, and comes back as it was', async () => {
    const firm = await aFirm();
    const tag = await make('Tag', { name: 'vip' });
    const { id } = await aPerson({ firmId: firm.id, rank: 7, tagIds: [tag.id] });
    const everywhere = `query ($id: ID!, $firm: ID!, $tag: ID!, $deleted: DeletedRecords) {
      person(id: $id, deleted: $deleted) { id rank deletedAt firm { id } }
      people(where: {id: {equals: $id}}, deleted: $deleted) { nodes { id } totalCount }
      personAggregate(where: {id: {equals: $id}}, deleted: $deleted) { count }
      firm(id: $firm) { people { nodes { id } totalCount } }
      firms(where: {people: {some: {id: {equals: $id}}}}) { nodes { id } }
      tag(id: $tag) { people { nodes { id } } }
    }`;
    const look = (deleted?: string) => data(everywhere, { id, firm: firm.id, tag: tag.id, deleted });
    const there = await look();
    expect(there).toMatchObject({
      person: { id, rank: 7, deletedAt: null, firm: { id: firm.id } },
      people: { nodes: [{ id }], totalCount: 1 },
      personAggregate: [{ count: 1 }],
      firm: { people: { nodes: [{ id }], totalCount: 1 } },
      firms: { nodes: [{ id: firm.id }] },
      tag: { people: { nodes: [{ id }] } },
    });
    expect(await look('ONLY')).toMatchObject({ person: null, people: { totalCount: 0 } });

    const deleted = await remove('Person', id);
    expect(deleted).toMatchObject({ id, version: 2, deletedAt: deleted.updatedAt });
    const below = {
      firm: { people: { nodes: [], totalCount: 0 } },
      firms: { nodes: [] },
      tag: { people: { nodes: [] } },
    };
    expect(await look()).toEqual({
      person: null,
      people: { nodes: [], totalCount: 0 },
      personAggregate: [{ count: 0 }],
      ...below,
    });
    for (const which of ['ONLY', 'INCLUDE']) {
      expect(await look(which)).toEqual({
        person: { id, rank: 7, deletedAt: deleted.deletedAt, firm: { id: firm.id } },
        people: { nodes: [{ id }], totalCount: 1 },
        personAggregate: [{ count: 1 }],
        ...below,
      });
    }
    for (const command of [
      gone('delete', 'Person'),
      'mutation ($id: ID!) { updatePerson(id: $id, input: {rank: 1}) { id } }',
    ])
      expect(await refusal(command, { id })).toMatchObject({ code: 'NOT_FOUND' });
    expect(
      await refusal('mutation ($id: ID!) { createNote(input: {body: "x", personId: $id}) { id } }', { id }),
    ).toMatchObject({
      code: 'VALIDATION_ERROR',
      faults: [{ path: 'personId' }],
    });

    expect(await restore('Person', id)).toMatchObject({ version: 3, deletedAt: null });
    expect((await look()).person).toEqual(there.person);
    expect((await look()).tag).toEqual(there.tag);
    // Of what is there nothing changes.
    expect(await restore('Person', id)).toMatchObject({ version: 3 });
    expect(await eventsOf(`Person-${id}`)).toMatchObject([
      ['created', {}],
      ['deleted', {}],
      ['restored', {}],
    ]);
  });

  test('asOf and history tell it before and after; another tenant can do nothing', async () => {
    const { id, updatedAt: at } = await aPerson({ rank: 1 });
    expect(await (await ask(gone('delete', 'Person'), { id }, THEIRS)).errors).toMatchObject([
      { extensions: { code: 'NOT_FOUND' } },
    ]);
    const deleted = await remove('Person', id);
    const back = await restore('Person', id);
    const rankAt = async (asOf: string, which = 'EXCLUDE') =>
      (await data(
        `query ($id: ID!, $asOf: DateTime!, $which: DeletedRecords) {
             person(id: $id, asOf: $asOf, deleted: $which) { rank deletedAt }
             people(where: {id: {equals: $id}}, asOf: $asOf, deleted: $which) { totalCount } }`,
        { id, asOf, which },
      )) as Json;
    expect(await rankAt(at)).toMatchObject({ person: { rank: 1 }, people: { totalCount: 1 } });
    expect(await rankAt(deleted.updatedAt)).toMatchObject({ person: null, people: { totalCount: 0 } });
    expect(await rankAt(deleted.updatedAt, 'ONLY')).toMatchObject({
      person: { rank: 1, deletedAt: deleted.updatedAt },
      people: { totalCount: 1 },
    });
    expect(await rankAt(back.updatedAt)).toMatchObject({ person: { rank: 1 }, people: { totalCount: 1 } });
    const { personHistory } = await data(
      'query ($id: ID!) { personHistory(id: $id) { nodes { action changes { field } record { rank deletedAt } } } }',
      { id },
    );
    expect(personHistory.nodes).toMatchObject([
      { action: 'restored', changes: [], record: { rank: 1, deletedAt: null } },
      { action: 'deleted', changes: [], record: { rank: 1, deletedAt: deleted.updatedAt } },
      { action: 'created', record: { rank: 1, deletedAt: null } },
    ]);
  });

  test('takes effect once for a key, and not on another version', async () => {
    const { id } = await aPerson();
    const key = uuidv7();
    expect(await refusal(gone('delete', 'Person'), { id, version: 7 })).toMatchObject({
      code: 'CONFLICT',
      currentVersion: 1,
    });
    const first = (await data(gone('delete', 'Person'), { id, key, version: 1 })).it;
    expect((await data(gone('delete', 'Person'), { id, key, version: 1 })).it).toEqual(first);
    expect(await refusal(gone('purge', 'Person'), { id, key, version: 1 })).toMatchObject({ code: 'CONFLICT' });
    expect(await typesOf(`Person-${id}`)).toEqual(['created', 'deleted']);
  });

  test('gives up what is unique, and gets it again only while it is free', async () => {
    const name = `Acme ${uuidv7()}`;
    const { id } = await make('Firm', { name });
    await remove('Firm', id);
    const second = await make('Firm', { name });
    expect(await refusal(gone('restore', 'Firm'), { id })).toMatchObject({
      code: 'VALIDATION_ERROR',
      faults: [{ path: 'name' }],
    });
    await remove('Firm', second.id);
    expect(await restore('Firm', id)).toMatchObject({ version: 3 });
  });

  test('a restore may also bring an older version, and comes back without what is gone', async () => {
    const [boss, tag, other] = [await aPerson(), await make('Tag', { name: 'a' }), await make('Tag', { name: 'b' })];
    const { id } = await aPerson({ rank: 1, bossId: boss.id, tagIds: [tag.id, other.id] });
    await data('mutation ($id: ID!) { updatePerson(id: $id, input: {rank: 2}) { id } }', { id });
    await remove('Person', id);
    await remove('Person', boss.id);
    await remove('Tag', tag.id);
    const back = `mutation ($id: ID!) { restorePerson(id: $id, version: 1) { rank bossId deletedAt tags { nodes { id } } } }`;
    expect((await data(back, { id })).restorePerson).toEqual({
      rank: 1,
      bossId: null,
      deletedAt: null,
      tags: { nodes: [{ id: other.id }] },
    });
    // What it must have is told instead.
    const note = await make('Note', { body: 'x', personId: id });
    await remove('Person', id);
    expect(await refusal(gone('restore', 'Note'), { id: note.id })).toMatchObject({
      code: 'VALIDATION_ERROR',
      faults: [{ path: 'personId', message: expect.stringContaining('there is no Person') }],
    });
  });
});

describe('what refers to it', () => {
  test('restrict refuses, and says what; then nothing has changed', async () => {
    const firm = await aFirm();
    const { id } = await aPerson({ firmId: firm.id });
    expect(await refusal(gone('delete', 'Firm'), { id: firm.id })).toMatchObject({
      code: 'CONFLICT',
      message: 'It is still referred to: 1 Person by firmId. Change or delete those first.',
      references: [{ model: 'Person', field: 'firmId', count: 1 }],
    });
    const badge = await make('Badge', { name: 'x' });
    await data('mutation ($id: ID!, $badge: ID!) { updatePerson(id: $id, input: {badgeIds: [$badge]}) { id } }', {
      id,
      badge: badge.id,
    });
    expect(await refusal(gone('delete', 'Badge'), { id: badge.id })).toMatchObject({
      references: [{ model: 'Person', field: 'badgeIds', count: 1 }],
    });
    expect(await typesOf(`Firm-${firm.id}`)).toEqual(['created']);
    // What is deleted itself stands against nothing.
    await remove('Person', id);
    await remove('Firm', firm.id);
    await remove('Badge', badge.id);
  });

  test('cascade, setNull and dropped links are an event each, in one transaction', async () => {
    const boss = await aPerson();
    const tag = await make('Tag', { name: 'x' });
    const worker = await aPerson({ bossId: boss.id, tagIds: [tag.id] });
    const note = await make('Note', { body: 'x', personId: boss.id });
    // Refused by `restrict`, were it not that it goes with its note.
    const stroke = await make('Stroke', { noteId: note.id, personId: boss.id });
    const draft = await make('Draft', { body: 'x' });
    await remove('Person', boss.id);
    expect(await eventsOf(`Person-${worker.id}`)).toMatchObject([
      ['created', {}],
      ['updated', { bossId: null }],
    ]);
    expect(await typesOf(`Note-${note.id}`)).toEqual(['created', 'deleted']);
    expect(await typesOf(`Stroke-${stroke.id}`)).toEqual(['created', 'deleted']);
    expect(await typesOf(`Draft-${draft.id}`)).toEqual(['created']);
    await remove('Tag', tag.id);
    expect((await eventsOf(`Person-${worker.id}`)).at(-1)).toEqual(['updated', { tagIds: [] }]);
    const [{ n }] = (await system.database.asOwner(
      `select count(distinct recorded_at)::int as n from event_log where stream = any($1) and type like '%.deleted'`,
      [[`Person-${boss.id}`, `Note-${note.id}`, `Stroke-${stroke.id}`]],
    )) as [{ n: number }];
    expect(n).toBe(1);
  });

  test('a cycle ends, and more than the limit changes nothing', async () => {
    const one = await aPerson();
    await data('mutation ($id: ID!, $boss: ID!) { updatePerson(id: $id, input: {bossId: $boss}) { id } }', {
      id: one.id,
      boss: one.id,
    });
    expect((await remove('Person', one.id)).version).toBe(3);
    const many = await aPerson();
    const context = { principal: aPrincipal(OURS), requestId: uuidv7() };
    const note = OFFICE.models.find(({ name }) => name === 'Note')!;
    await Promise.all(
      Array.from({ length: MAX_RECORDS_PER_COMMAND }, (_, n) =>
        system.commands.create({
          model: note,
          input: { body: `${n}`, personId: many.id },
          idempotencyKey: null,
          context,
        }),
      ),
    );
    expect(await refusal(gone('delete', 'Person'), { id: many.id })).toMatchObject({
      code: 'QUERY_TOO_COMPLEX',
      limit: 'MAX_RECORDS_PER_COMMAND',
    });
    expect(await person(many.id, 'notes { totalCount }')).toEqual({ notes: { totalCount: MAX_RECORDS_PER_COMMAND } });
    const [{ id }] = (
      await data('query ($id: ID!) { notes(where: {personId: {equals: $id}}, first: 1) { nodes { id } } }', {
        id: many.id,
      })
    ).notes.nodes;
    await remove('Note', id);
    await remove('Person', many.id);
    const { notes } = await data('query ($id: ID!) { notes(where: {personId: {equals: $id}}) { totalCount } }', {
      id: many.id,
    });
    expect(notes.totalCount).toBe(0);
  });

  test('who begins to refer to it at the same time is in time, or told that it is gone', async () => {
    // Another process: its commands share no transaction and no order with those of the API.
    const app = await openAppDatabase({ url: system.database.url, service: 'other', poolSize: 4 });
    const other = new RecordCommands(OFFICE, app, { codec: system.codec });
    const context = { principal: aPrincipal(OURS), requestId: uuidv7() };
    const [firm, note] = ['Person', 'Note'].map((name) => OFFICE.models.find((each) => each.name === name)!);
    let [late, early] = [0, 0];
    for (let round = 0; round < 25; round += 1) {
      const { id } = await aPerson();
      const results = await Promise.allSettled([
        system.commands.delete({ model: firm!, id, expectedVersion: null, idempotencyKey: null, context }),
        ...Array.from({ length: 4 }, () =>
          other.create({ model: note!, input: { body: 'x', personId: id }, idempotencyKey: null, context }),
        ),
      ]);
      expect(results[0]!.status).toBe('fulfilled');
      for (const result of results.slice(1)) {
        if (result.status === 'fulfilled') early += 1;
        else {
          late += 1;
          expect(result.reason).toMatchObject({
            code: 'VALIDATION_ERROR',
            details: { faults: [{ path: 'personId' }] },
          });
        }
      }
    }
    await app.close();
    expect(early + late).toBe(100);
    const orphans = await system.database.asOwner(
      `select n.id from model_note n join model_person p on p.id = n.person_id
       where n.deleted_at is null and p.deleted_at is not null`,
    );
    expect(orphans).toEqual([]);
  });
});

describe('a purged record', () => {
  const SECRETS = /Grace|555|cellar/;

  test('leaves no value in row, history and snapshots, and nothing personal that can be read in the log', async () => {
    const tag = await make('Tag', { name: 'x' });
    const { id, updatedAt } = await aPerson({ name: 'Grace', phone: '555', rank: 9, tagIds: [tag.id] });
    const note = await make('Note', { body: 'in the cellar', personId: id });
    await remove('Note', note.id);
    expect(await purge('Person', id)).toMatchObject({ id, version: 2, deletedAt: null });
    await caughtUp();
    const of = (sql: string) => system.database.asOwner(sql, [[id, note.id]]);
    const left = [
      await of('select to_jsonb(r) from model_person r where id = any($1)'),
      await of('select to_jsonb(h) from history_person h where id = any($1)'),
      await of('select to_jsonb(r) from model_note r where id = any($1)'),
      await of('select to_jsonb(h) from history_note h where id = any($1)'),
      await of('select to_jsonb(l) from link_person_tags l where owner_id = any($1)'),
      await of(`select state from stream_snapshots where stream like any(select '%' || unnest($1::text[]))`),
      await data(
        `query ($id: ID!, $at: DateTime!) {
        person(id: $id, deleted: INCLUDE) { name } before: person(id: $id, asOf: $at) { name phone rank }
        people(deleted: ONLY, where: {id: {equals: $id}}) { totalCount }
        personHistory(id: $id) { nodes { action changes { before after } record { name phone rank tagIds } } } }`,
        { id, at: updatedAt },
      ),
    ];
    expect(left[0]).toHaveLength(1);
    expect(left[4]).toEqual([]);
    expect(JSON.stringify(left)).not.toMatch(SECRETS);
    expect(left[6]).toMatchObject({
      person: null,
      before: { name: null, phone: null, rank: null },
      people: { totalCount: 0 },
      personHistory: { nodes: [{ action: 'purged' }, { action: 'created', record: { rank: null, tagIds: [] } }] },
    });
    const [key] = await system.database.asOwner('select wrapped from subject_keys where subject = $1', [
      `Person-${id}`,
    ]);
    expect(key).toEqual({ wrapped: null });
    expect(await typesOf(`Note-${note.id}`)).toEqual(['created', 'deleted', 'purged']);

    for (const command of [gone('restore', 'Person'), gone('purge', 'Person'), gone('delete', 'Person')])
      expect(await refusal(command, { id })).toMatchObject({ code: 'NOT_FOUND' });
    expect(await refusal('mutation ($id: ID!) { restorePerson(id: $id, version: 1) { id } }', { id })).toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  test('of a model that keeps nothing a deletion is one', async () => {
    const { id } = await make('Draft', { body: 'Grace' });
    expect(await remove('Draft', id)).toMatchObject({ version: 2 });
    expect(await typesOf(`Draft-${id}`)).toEqual(['created', 'purged']);
    expect(await refusal(gone('restore', 'Draft'), { id })).toMatchObject({ code: 'NOT_FOUND' });
    const rows = await system.database.asOwner('select body from model_draft where id = $1', [id]);
    expect(rows).toEqual([{ body: null }]);
  });
});

test('subscribers are told that it is gone, and that it is back', async () => {
  // One that never matched: nobody hears of it, whatever becomes of it.
  const stranger = await aPerson({ rank: 1 });
  const [{ after }] = (await system.database.asOwner('select max(position)::text as after from event_log')) as [
    { after: string },
  ];
  await remove('Person', stranger.id);
  await restore('Person', stranger.id);
  const { id } = await aPerson({ rank: 41 });
  await remove('Person', id);
  await restore('Person', id);
  await caughtUp();
  const changes = `subscription ($where: PersonWhere, $after: String) { personChanged(after: $after, where: $where) { type id person { rank } } }`;
  const told = (count: number) => system.follow(changes, { where: { rank: { equals: 41 } }, after }, count);
  expect(await told(3)).toEqual([
    { type: 'CREATED', id, person: { rank: 41 } },
    { type: 'DELETED', id, person: { rank: 41 } },
    { type: 'RESTORED', id, person: { rank: 41 } },
  ]);
  await remove('Person', id);
  await caughtUp();
  // Told as null twice: it was there before each, and is not now.
  expect(await told(2)).toEqual([
    { type: 'DELETED', id, person: null },
    { type: 'DELETED', id, person: null },
  ]);
  await purge('Person', id);
  await caughtUp();
  expect(await told(1)).toEqual([{ type: 'PURGED', id, person: null }]);
});

test(`rows, links and histories built anew from the log are those that the commands wrote (seed ${SEED})`, async () => {
  const random = seeded(SEED);
  const pick = <Member>(members: readonly Member[]): Member => members[Math.floor(random() * members.length)]!;
  const tags = await Promise.all(Array.from({ length: 4 }, (_, n) => make('Tag', { name: `${n}` })));
  const people = await Promise.all(
    Array.from({ length: 12 }, () =>
      aPerson({ rank: 1, tagIds: tags.filter(() => random() < 0.5).map(({ id }) => id) }),
    ),
  );
  await Promise.all(people.map(({ id }) => make('Note', { body: 'x', personId: id })));
  await make('Badge', { name: 'x' }).then(({ id }) =>
    data('mutation ($id: ID!, $b: ID!) { updatePerson(id: $id, input: {badgeIds: [$b]}) { id } }', {
      id: people[0].id,
      b: id,
    }),
  );
  for (let n = 0; n < 60; n += 1) {
    const { id } = pick(people);
    const boss = pick(people).id;
    const tagIds = tags.filter(() => random() < 0.5).map((tag) => tag.id);
    // Whether it is refused depends on what is there by then.
    await ask(
      pick([
        gone('delete', 'Person'),
        gone('restore', 'Person'),
        `mutation ($id: ID!, $tagIds: [ID!], $boss: ID) { updatePerson(id: $id, input: {rank: ${n}, tagIds: $tagIds, bossId: $boss}) { id } }`,
        `mutation ($id: ID!) { restorePerson(id: $id, version: 1) { id } }`,
        ...(n > 50 ? [gone('purge', 'Person')] : []),
      ]),
      { id, tagIds, boss },
    );
    if (n === 30) await remove('Tag', tags[0].id);
  }
  await purge('Person', people[1].id).catch(() => undefined);
  const found = await system.database.asOwner<{ type: string }>(
    `select distinct type from event_log where type like 'Person.%'`,
  );
  expect(found.map(({ type }) => type).sort()).toEqual(
    ['created', 'deleted', 'purged', 'restored', 'updated'].map((kind) => `Person.${kind}`),
  );
  await eventually('the history has it all', async () => {
    await caughtUp();
    return true;
  });
  const { differences, empty } = await system.rebuilt();
  expect(differences).toEqual([]);
  expect(empty).toEqual([]);
});
