import { uuidv7 } from '@atomo-cc/kernel';
import { belongsTo, defineSchema, model, number, text } from '@atomo-cc/schema';
import { callers, SHOP_TENANTS, type Json } from '../testing/index.js';
import { MAX_RECORDS_PER_COMMAND } from './deletion.js';
import { aSystem, type TestSystem } from './testing/system.js';

const [OURS, THEIRS] = SHOP_TENANTS;

const SHELVES = defineSchema({
  models: {
    Shelf: model({ plural: 'shelves', fields: { label: text().max(200).required().unique(), room: text() } }),
    Crate: model({
      fields: {
        name: text().required(),
        weight: number().min(0),
        shelf: belongsTo('Shelf'),
        inside: belongsTo('Crate'),
      },
      access: {
        read: { everyone: true },
        create: { Manager: true },
        update: { Manager: { where: { weight: { lt: 100 } } } },
        delete: { Manager: { where: { weight: { lt: 100 } } } },
      },
    }),
  },
});

/** For a busy machine. */
jest.setTimeout(90_000);

let system: TestSystem;

beforeAll(async () => {
  system = await aSystem(SHELVES);
});

afterAll(() => system?.stop());

afterEach(() => {
  callers.role = 'Admin';
});

const data = (query: string, variables = {}, tenant = OURS): Promise<Json> => system.api.data(query, variables, tenant);
const refusal = async (query: string, variables: object) => {
  const { errors } = await system.api.ask(query, { ...variables });
  return errors?.[0] && { ...errors[0].extensions, message: errors[0].message };
};
const CREATE = `mutation ($inputs: [CreateCrateInput!]!, $key: String) {
  it: createCrates(inputs: $inputs, idempotencyKey: $key) { count nodes { id version name weight shelf { label } } } }`;
const UPDATE = `mutation ($where: CrateWhere!, $input: UpdateCrateInput!, $key: String) {
  it: updateCrates(where: $where, input: $input, idempotencyKey: $key) { count nodes { id version name weight } } }`;
const DELETE = `mutation ($where: CrateWhere!, $key: String) { it: deleteCrates(where: $where, idempotencyKey: $key) { count nodes { id version deletedAt } } }`;
const named = (prefix: string) => ({ name: { startsWith: prefix } });
const count = async (where: object) =>
  (await data('query ($where: CrateWhere) { crates(where: $where) { totalCount } }', { where })).crates
    .totalCount as number;
const events = async () =>
  (await system.database.asOwner<{ n: number }>('select count(*)::int as n from event_log'))[0]!.n;
const crates = (prefix: string, n: number, more: object = {}) =>
  Array.from({ length: n }, (_, at) => ({ name: `${prefix} ${at}`, weight: at, ...more }));

test('many are created, changed and deleted in a transaction each, with an event for every record', async () => {
  const [label, prefix] = [uuidv7(), uuidv7()];
  const { createShelf: shelf } = await data(`mutation { createShelf(input: {label: "${label}"}) { id } }`);
  const before = await events();
  const made = (await data(CREATE, { inputs: crates(prefix, 30, { shelfId: shelf.id }) })).it;
  expect(made.count).toBe(30);
  expect(made.nodes.map(({ name, version, shelf: on }: Json) => [name, version, on.label])).toEqual(
    crates(prefix, 30).map(({ name }) => [name, 1, label]),
  );
  const changed = (await data(UPDATE, { where: { ...named(prefix), weight: { gte: 10 } }, input: { weight: 12 } })).it;
  expect(changed.count).toBe(20);
  // The one that had it already is as it was.
  expect(changed.nodes.map(({ version }: Json) => version).sort()).toEqual([1, ...Array(19).fill(2)]);
  expect(await count({ ...named(prefix), weight: { equals: 12 } })).toBe(20);
  const gone = (await data(DELETE, { where: { ...named(prefix), weight: { equals: 12 } } })).it;
  expect(gone.count).toBe(20);
  expect(gone.nodes.every(({ deletedAt }: Json) => deletedAt !== null)).toBe(true);
  expect(await count(named(prefix))).toBe(10);
  expect(await events()).toBe(before + 30 + 19 + 20);
  const [{ n }] = (await system.database.asOwner(
    `select count(distinct recorded_at)::int as n from event_log where type = 'Crate.deleted'`,
  )) as [{ n: number }];
  expect(n).toBe(1);
  expect((await data(DELETE, { where: named('nobody has this name') })).it).toEqual({ count: 0, nodes: [] });
});

test('a faulty input is told by its place, and nothing is written', async () => {
  const prefix = uuidv7();
  const before = await events();
  const inputs = crates(prefix, 5);
  inputs[3]!.weight = -1;
  expect(await refusal(CREATE, { inputs })).toMatchObject({
    code: 'VALIDATION_ERROR',
    index: 3,
    message: expect.stringMatching(/^inputs\.3: weight/),
    faults: [{ path: 'inputs.3.weight' }],
  });
  expect(await refusal(CREATE, { inputs: crates(prefix, 2, { shelfId: uuidv7() }) })).toMatchObject({
    index: 0,
    faults: [{ path: 'inputs.0.shelfId' }],
  });
  const labels = `mutation ($label: String!) { createShelves(inputs: [{label: $label}, {label: $label}]) { count } }`;
  expect(await refusal(labels, { label: uuidv7() })).toMatchObject({
    code: 'VALIDATION_ERROR',
    faults: [{ path: 'inputs.1.label' }],
  });
  expect(await refusal(UPDATE, { where: named(prefix), input: { weight: -1 } })).toBeUndefined();
  await data(CREATE, { inputs: crates(prefix, 2) });
  expect(await refusal(UPDATE, { where: named(prefix), input: { weight: -1 } })).toMatchObject({
    code: 'VALIDATION_ERROR',
    faults: [{ path: 'weight' }],
  });
  expect(await events()).toBe(before + 2);
});

test('a deletion looks at what refers to its records from outside alone', async () => {
  const prefix = uuidv7();
  const [outer] = (await data(CREATE, { inputs: crates(prefix, 1) })).it.nodes;
  await data(CREATE, { inputs: crates(`${prefix} inner`, 2, { insideId: outer.id }) });
  expect(await refusal(DELETE, { where: { id: { equals: outer.id } } })).toMatchObject({
    code: 'CONFLICT',
    references: [{ model: 'Crate', field: 'insideId', count: 2 }],
  });
  expect((await data(DELETE, { where: named(prefix) })).it.count).toBe(3);
});

test('takes effect once for a key', async () => {
  const [prefix, key] = [uuidv7(), uuidv7()];
  const create = { inputs: crates(prefix, 3), key };
  const first = (await data(CREATE, create)).it;
  expect((await data(CREATE, create)).it).toEqual(first);
  expect(await refusal(CREATE, { inputs: crates(prefix, 4), key })).toMatchObject({ code: 'CONFLICT' });
  const change = { where: { ...named(prefix), weight: { equals: 1 } }, input: { weight: 7 }, key: uuidv7() };
  const changed = (await data(UPDATE, change)).it;
  expect((await data(UPDATE, change)).it).toEqual(changed);
  const remove = { where: named(prefix), key: uuidv7() };
  const gone = (await data(DELETE, remove)).it;
  expect((await data(DELETE, remove)).it).toEqual(gone);
  expect(await count(named(prefix))).toBe(0);
});

test('more than the limit is refused with what to do, as much as that is done', async () => {
  const prefix = uuidv7();
  const inputs = crates(prefix, MAX_RECORDS_PER_COMMAND);
  const limit = { code: 'QUERY_TOO_COMPLEX', limit: 'MAX_RECORDS_PER_COMMAND', max: MAX_RECORDS_PER_COMMAND };
  expect(await refusal(CREATE, { inputs: [...inputs, { name: 'one more' }] })).toMatchObject(limit);
  expect((await data(CREATE, { inputs })).it.count).toBe(MAX_RECORDS_PER_COMMAND);
  await data(CREATE, { inputs: crates(prefix, 1) });
  for (const [command, input] of [
    [UPDATE, { weight: 1 }],
    [DELETE, undefined],
  ])
    expect(await refusal(command as string, { where: named(prefix), input })).toMatchObject(limit);
});

test('of records that are alike the one is named that comes second, be the first one among them or there before', async () => {
  const [taken, deleted] = [uuidv7(), uuidv7()];
  const shelf = (label: string) => data(`mutation { createShelf(input: {label: "${label}"}) { id } }`);
  await shelf(taken);
  await data('mutation ($id: ID!) { deleteShelf(id: $id) { id } }', (await shelf(deleted)).createShelf);
  const create = (...labels: string[]) =>
    refusal('mutation ($inputs: [CreateShelfInput!]!) { createShelves(inputs: $inputs) { count } }', {
      inputs: labels.map((label) => ({ label })),
    });
  const at = (index: number) => ({
    code: 'VALIDATION_ERROR',
    index,
    message: `inputs.${index}: label: another Shelf has this value already.`,
    faults: [{ path: `inputs.${index}.label`, message: expect.any(String) }],
  });
  const free = uuidv7();
  expect(await create(free, uuidv7(), free)).toMatchObject(at(2));
  expect(await create(free, taken, deleted)).toMatchObject(at(1));
  expect(await create(free, deleted)).toBeUndefined();
});

test('who may not is told so, for the whole; another tenant’s records are none of it', async () => {
  const prefix = uuidv7();
  await data(CREATE, { inputs: [...crates(prefix, 2), { name: `${prefix} heavy`, weight: 500 }] });
  expect((await data(DELETE, { where: named(prefix) }, THEIRS)).it.count).toBe(0);
  callers.role = 'Manager';
  for (const command of [UPDATE, DELETE])
    expect(
      await refusal(command, { where: named(prefix), ...(command === UPDATE && { input: { name: 'x' } }) }),
    ).toMatchObject({ code: 'FORBIDDEN' });
  expect((await data(DELETE, { where: { ...named(prefix), weight: { lt: 100 } } })).it.count).toBe(2);
  expect(await refusal('mutation { purgeCrate(id: "x") { id } }', {})).toMatchObject({ code: 'FORBIDDEN' });
  callers.role = 'Viewer';
  for (const command of [DELETE, UPDATE, '{ crates(deleted: ONLY) { totalCount } }'])
    expect(['FORBIDDEN', 'VALIDATION_ERROR']).toContain(
      ((await refusal(command, { where: named(prefix), input: {}, inputs: [] })) as Json).code,
    );
  callers.role = 'Admin';
  expect(await count(named(prefix))).toBe(1);
});

test('rows built anew from the log are those that the commands wrote', async () => {
  expect((await system.rebuilt()).differences).toEqual([]);
});
