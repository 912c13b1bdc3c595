import { eventStoreMigrations } from '@atomo-cc/event-store';
import { uuidv5, uuidv7 } from '@atomo-cc/kernel';
import { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { anApi, SHOP, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

const [OURS, THEIRS] = SHOP_TENANTS;
/** For a busy machine. */
jest.setTimeout(60_000);

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));

let database: TestDatabase;
let api: TestApi;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  await createModelTables(database.url, SHOP);
  api = await anApi([modelsApi(SHOP, database.app)]);
});

afterAll(async () => {
  await api?.close();
  await database?.drop();
});

interface Row {
  id: string;
  title: string;
  price: number | null;
  inStock: boolean | null;
  arrivesOn: string | null;
  size: string | null;
  order: string | null;
  brandId: string | null;
}

/** Rows as the commands would leave them, faster. */
async function insertItems(rows: readonly Partial<Row>[], tenant = OURS): Promise<Row[]> {
  const whole = rows.map((row) => ({
    id: uuidv7(),
    title: 't',
    price: null,
    inStock: null,
    arrivesOn: null,
    size: null,
    order: null,
    brandId: null,
    ...row,
  }));
  await database.asOwner(
    `insert into model_item (tenant_id, id, version, created_at, updated_at, title, price, in_stock, arrives_on, size, "order", brand_id)
     select $1, r.id, 1, now(), now(), r.title, r.price, r."inStock", r."arrivesOn", r.size, r."order", r."brandId"
     from jsonb_to_recordset($2::jsonb) as r (id uuid, title text, price float8, "inStock" boolean, "arrivesOn" date, size text, "order" text, "brandId" uuid)`,
    [tenant, JSON.stringify(whole)],
  );
  return whole;
}

async function clear(): Promise<void> {
  await database.asOwner('delete from model_item');
  await database.asOwner('delete from model_brand');
}

async function titles(where: unknown): Promise<string[]> {
  const { items } = await api.data(
    'query ($where: ItemWhere) { items(where: $where, first: 100) { nodes { title } totalCount } }',
    { where },
  );
  const found = items.nodes.map((node: { title: string }) => node.title).toSorted();
  expect(items.totalCount).toBe(found.length);
  return found;
}

describe('where', () => {
  const A = uuidv5(OURS, 'brand a');
  const B = uuidv5(OURS, 'brand b');
  const NAMES: Record<string, string> = {
    a: uuidv5(OURS, 'a'),
    b: uuidv5(OURS, 'b'),
    c: uuidv5(OURS, 'c'),
    none: uuidv5(OURS, 'none'),
  };

  beforeAll(async () => {
    await clear();
    await insertItems([
      {
        id: NAMES['a']!,
        title: 'a',
        order: 'apple',
        price: 1,
        inStock: true,
        arrivesOn: '2026-01-01',
        size: 'Small',
        brandId: A,
      },
      {
        id: NAMES['b']!,
        title: 'b',
        order: 'banana',
        price: 2.5,
        inStock: false,
        arrivesOn: '2026-02-28',
        size: 'Large',
        brandId: B,
      },
      {
        id: NAMES['c']!,
        title: 'c',
        order: 'cherry',
        price: 0,
        inStock: true,
        arrivesOn: '1999-12-31',
        size: 'Small',
        brandId: A,
      },
      { id: NAMES['none']!, title: 'none' },
    ]);
    await insertItems([{ title: 'theirs', order: 'apple', price: 1 }], THEIRS);
  });

  test.each<[string, Record<string, unknown>, string]>([
    // text
    ['order', { equals: 'apple' }, 'a'],
    ['order', { equals: null }, 'none'],
    ['order', { not: 'apple' }, 'b c none'],
    ['order', { not: null }, 'a b c'],
    ['order', { in: ['apple', 'cherry', 'x'] }, 'a c'],
    ['order', { in: [] }, ''],
    ['order', { notIn: ['apple', 'cherry'] }, 'b none'],
    ['order', { notIn: [] }, 'a b c none'],
    ['order', { gt: 'apple', lt: 'cherry' }, 'b'],
    ['order', { gte: 'cherry' }, 'c'],
    ['order', { lte: 'apple' }, 'a'],
    ['order', { contains: 'AN' }, 'b'],
    ['order', { startsWith: 'ban' }, 'b'],
    ['order', { endsWith: 'RRY' }, 'c'],
    ['order', { contains: '' }, 'a b c'],
    ['order', { isNull: true }, 'none'],
    ['order', { isNull: false }, 'a b c'],
    // number
    ['price', { equals: 0 }, 'c'],
    ['price', { not: 0 }, 'a b none'],
    ['price', { in: [1, 2.5] }, 'a b'],
    ['price', { notIn: [1, 2.5] }, 'c none'],
    ['price', { gt: 1 }, 'b'],
    ['price', { gte: 1 }, 'a b'],
    ['price', { lt: 1 }, 'c'],
    ['price', { lte: 1 }, 'a c'],
    ['price', { isNull: true }, 'none'],
    ['price', { gte: 0, not: 1 }, 'b c'],
    // boolean
    ['inStock', { equals: true }, 'a c'],
    ['inStock', { equals: false }, 'b'],
    ['inStock', { not: true }, 'b none'],
    ['inStock', { isNull: true }, 'none'],
    ['inStock', { isNull: false }, 'a b c'],
    // date
    ['arrivesOn', { equals: '2026-02-28' }, 'b'],
    ['arrivesOn', { not: '2026-02-28' }, 'a c none'],
    ['arrivesOn', { in: ['2026-02-28', '1999-12-31'] }, 'b c'],
    ['arrivesOn', { notIn: ['2026-02-28'] }, 'a c none'],
    ['arrivesOn', { gt: '2026-01-01' }, 'b'],
    ['arrivesOn', { gte: '2026-01-01' }, 'a b'],
    ['arrivesOn', { lt: '2026-01-01' }, 'c'],
    ['arrivesOn', { lte: '2026-01-01' }, 'a c'],
    ['arrivesOn', { isNull: true }, 'none'],
    // enum
    ['size', { equals: 'Small' }, 'a c'],
    ['size', { not: 'Small' }, 'b none'],
    ['size', { in: ['Large'] }, 'b'],
    ['size', { notIn: ['Large'] }, 'a c none'],
    ['size', { isNull: true }, 'none'],
    // relation
    ['brandId', { equals: A }, 'a c'],
    ['brandId', { not: A }, 'b none'],
    ['brandId', { in: [A, B] }, 'a b c'],
    ['brandId', { notIn: [A] }, 'b none'],
    ['brandId', { isNull: true }, 'none'],
    // id
    ['id', { equals: NAMES['a'] }, 'a'],
    ['id', { not: NAMES['a'] }, 'b c none'],
    ['id', { in: [NAMES['a'], NAMES['b']] }, 'a b'],
    ['id', { notIn: [NAMES['a'], NAMES['b']] }, 'c none'],
    // moments
    ['createdAt', { gt: '2020-01-01T00:00:00Z' }, 'a b c none'],
    ['createdAt', { gte: '2020-01-01T00:00:00Z', lt: '2020-01-02T00:00:00Z' }, ''],
    ['updatedAt', { lte: '2020-01-01T00:00:00+02:00' }, ''],
    ['updatedAt', { not: '2020-01-01T00:00:00Z' }, 'a b c none'],
    ['createdAt', { in: ['2020-01-01T00:00:00Z'] }, ''],
    ['createdAt', { notIn: ['2020-01-01T00:00:00Z'] }, 'a b c none'],
    ['createdAt', { equals: '2020-01-01T00:00:00Z' }, ''],
  ])('%s %j finds %j', async (field, condition, found) => {
    expect(await titles({ [field]: condition })).toEqual(found.split(' ').filter(Boolean));
  });

  test.each<[string, unknown, string]>([
    ['nothing', null, 'a b c none'],
    ['an empty condition', {}, 'a b c none'],
    ['a field without a condition', { order: null }, 'a b c none'],
    ['several fields', { inStock: { equals: true }, size: { equals: 'Small' }, price: { gt: 0 } }, 'a'],
    ['and', { and: [{ inStock: { equals: true } }, { price: { gt: 0 } }] }, 'a'],
    ['and of nothing', { and: [] }, 'a b c none'],
    ['or', { or: [{ order: { equals: 'apple' } }, { price: { equals: 0 } }] }, 'a c'],
    ['or of nothing', { or: [] }, ''],
    [
      'or beside a field',
      { or: [{ title: { equals: 'a' } }, { title: { equals: 'b' } }], inStock: { equals: true } },
      'a',
    ],
    ['not', { not: { order: { equals: 'apple' } } }, 'b c none'],
    ['not of several', { not: { inStock: { equals: true }, price: { gt: 0 } } }, 'b c none'],
    ['not of not', { not: { not: { order: { equals: 'apple' } } } }, 'a'],
    ['not of or', { not: { or: [{ title: { equals: 'a' } }, { price: { gt: 1 } }] } }, 'c none'],
    ['deep', { and: [{ or: [{ not: { price: { gt: 0 } } }, { and: [{ size: { equals: 'Large' } }] }] }] }, 'b c none'],
  ])('%s', async (_name, where, found) => {
    expect(await titles(where)).toEqual(found.split(' ').filter(Boolean));
  });

  test('the length of what is asked for is bounded, with a code', async () => {
    const { errors, status } = await api.ask('query ($where: ItemWhere) { items(where: $where) { totalCount } }', {
      where: { title: { in: Array.from({ length: 1_001 }, String) } },
    });
    expect(errors).toMatchObject([{ extensions: { code: 'QUERY_TOO_COMPLEX' } }]);
    expect(status).toBe(200);
  });
});

describe('texts that mean something to SQL', () => {
  const HOSTILE = [
    `100%`,
    `100 percent`,
    `a_b`,
    `axb`,
    `back\\slash`,
    `backslash`,
    `O'Brien`,
    `"double"`,
    `'; drop table model_item; --`,
    `' or '1'='1`,
    `$1`,
    `\\' or true --`,
    `%`,
    `\\`,
    `\u{1f41d} ключ`,
  ];

  beforeAll(async () => {
    await clear();
    await insertItems(HOSTILE.map((order, at) => ({ order, title: `${at}` })));
  });

  test.each(HOSTILE.map((text, at) => [text, `${at}`]))(
    '%j is found as it is and finds no other',
    async (text, title) => {
      expect(await titles({ order: { equals: text } })).toEqual([title]);
      expect(await titles({ order: { in: [text] } })).toEqual([title]);
      const holding = (fits: (other: string) => boolean) =>
        HOSTILE.flatMap((other, at) => (fits(other) ? [`${at}`] : [])).toSorted();
      expect(await titles({ order: { contains: text } })).toEqual(holding((other) => other.includes(text)));
      expect(await titles({ order: { startsWith: text } })).toEqual(holding((other) => other.startsWith(text)));
      expect(await titles({ order: { endsWith: text } })).toEqual(holding((other) => other.endsWith(text)));
    },
  );

  test.each(HOSTILE)('%j as a cursor is refused', async (after) => {
    const { errors } = await api.ask('query ($after: String) { items(after: $after) { totalCount } }', { after });
    expect(errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
  });
});

describe('pages', () => {
  let random: () => number;

  beforeEach(async () => {
    await clear();
    random = mulberry32(SEED);
  });

  const pick = <Value>(values: readonly Value[]): Value => values[Math.floor(random() * values.length)]!;
  const anItem = (): Partial<Row> => ({
    title: pick(['a', 'B', 'b', 'ä', 'Z', '']),
    price: pick([null, 0, -0.1, 0.1, 0.30000000000000004, 1e21, 5e-324]),
    inStock: pick([null, true, false]),
    arrivesOn: pick([null, '1999-12-31', '2026-02-28']),
    order: pick([null, 'x', 'y']),
  });
  const PAGE = `query ($orderBy: [ItemOrder!], $first: Int, $after: String) {
    items(orderBy: $orderBy, first: $first, after: $after) {
      edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage endCursor startCursor }
    }
  }`;

  async function walk(
    orderBy: unknown,
    first: number,
    betweenPages: () => Promise<unknown> = async () => undefined,
  ): Promise<string[]> {
    const seen: string[] = [];
    for (let after: string | null = null; ;) {
      const { items }: Json = await api.data(PAGE, { orderBy, first, after });
      expect(items.pageInfo.hasPreviousPage).toBe(after !== null);
      seen.push(...items.edges.map((edge: Json) => edge.node.id));
      if (!items.pageInfo.hasNextPage) return seen;
      expect(items.edges.length).toBe(first);
      expect(items.pageInfo.endCursor).toBe(items.edges.at(-1).cursor);
      after = items.pageInfo.endCursor;
      await betweenPages();
    }
  }

  const KEYS = ['title', 'price', 'inStock', 'arrivesOn', 'order', 'createdAt', 'updatedAt', 'id'];
  const anOrder = () =>
    Array.from({ length: Math.floor(random() * 4) }, () => ({ [pick(KEYS)]: pick(['ASC', 'DESC']) }));

  test(`any order, with ties and nulls, shows each record once (SEED=${SEED})`, async () => {
    const rows = await insertItems(Array.from({ length: 40 }, anItem));
    const all = rows.map(({ id }) => id).toSorted();
    const orders = [
      [],
      [{ id: 'DESC' }, { price: 'ASC' }],
      [{ price: 'ASC' }],
      [{ price: 'DESC' }],
      ...Array.from({ length: 16 }, anOrder),
    ];
    for (const [at, orderBy] of orders.entries()) {
      const first = 1 + (at % 7);
      const seen = await walk(orderBy, first);
      expect({ orderBy, first, seen: seen.toSorted() }).toEqual({ orderBy, first, seen: all });
      // The order of the pages together is the order of the whole list.
      expect(seen).toEqual(await walk(orderBy, 100));
    }
  });

  test(`records added between pages neither repeat nor hide any (SEED=${SEED})`, async () => {
    for (let first = 1; first <= 7; first += 1) {
      await clear();
      const rows = await insertItems(Array.from({ length: 25 }, anItem));
      let added = 0;
      const seen = await walk(anOrder(), first, async () => {
        // A list that grows by one a page would never end on pages of one.
        if ((added += 1) <= 30) await insertItems([anItem()]);
      });
      expect(new Set(seen).size).toBe(seen.length);
      for (const { id } of rows) expect(seen).toContain(id);
    }
  });

  test('nulls come last whichever way', async () => {
    await insertItems([{ title: 'none' }, { title: 'two', price: 2 }, { title: 'one', price: 1 }]);
    const order = async (price: string) => {
      const { items } = await api.data(
        'query ($orderBy: [ItemOrder!]) { items(orderBy: $orderBy) { nodes { title } } }',
        { orderBy: [{ price }] },
      );
      return items.nodes.map((node: { title: string }) => node.title);
    };
    expect(await order('ASC')).toEqual(['one', 'two', 'none']);
    expect(await order('DESC')).toEqual(['two', 'one', 'none']);
  });

  test('the total counts what fits the condition, on every page, of this tenant only', async () => {
    await insertItems(Array.from({ length: 5 }, (_, price) => ({ price })));
    await insertItems([{ price: 4 }], THEIRS);
    const query = `query ($after: String) { items(first: 2, after: $after, where: { price: { gt: 0 } }) { totalCount pageInfo { endCursor } nodes { price } } }`;
    const first = (await api.data(query)).items;
    expect(first).toMatchObject({ totalCount: 4, nodes: [{ price: 1 }, { price: 2 }] });
    expect((await api.data(query, { after: first.pageInfo.endCursor })).items).toMatchObject({
      totalCount: 4,
      nodes: [{ price: 3 }, { price: 4 }],
    });
    expect((await api.data(query, {}, THEIRS)).items).toMatchObject({ totalCount: 1 });
  });

  test('a cursor is good for its own order only', async () => {
    await insertItems([{ price: 1 }, { price: 2 }]);
    const { items } = await api.data(PAGE, { orderBy: [{ price: 'ASC' }], first: 1 });
    const { errors } = await api.ask(PAGE, { orderBy: [{ price: 'DESC' }], first: 1, after: items.pageInfo.endCursor });
    expect(errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
  });

  test.each([0, -1, 101])('first: %p is refused', async (first) => {
    expect((await api.ask(PAGE, { first })).errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
  });

  test('without first, twenty are on a page', async () => {
    await insertItems(Array.from({ length: 21 }, () => ({})));
    expect((await api.data('{ items { nodes { id } pageInfo { hasNextPage } } }')).items).toMatchObject({
      nodes: { length: 20 },
      pageInfo: { hasNextPage: true },
    });
  });
});

describe('one statement', () => {
  let statements: string[];
  let brand: string;

  beforeAll(async () => {
    await clear();
    const names = ['acme', 'acme lamps'].map((name) => ({ id: uuidv7(), name }));
    brand = names[1]!.id;
    for (const [at, { id, name }] of names.entries()) {
      await database.asOwner(
        `insert into model_brand (tenant_id, id, version, created_at, updated_at, name, parent_id) values ($1, $2, 1, now(), now(), $3, $4)`,
        [OURS, id, name, at === 0 ? null : names[0]!.id],
      );
    }
    await insertItems(
      Array.from({ length: 30 }, (_, at) => ({ title: `${at}`, price: at, brandId: at % 3 ? brand : null })),
    );
  });

  beforeEach(() => {
    statements = [];
    const query = Tx.prototype.query;
    jest.spyOn(Tx.prototype, 'query').mockImplementation(function (this: Tx, sql, parameters) {
      statements.push(sql);
      return query.call(this, sql, parameters) as never;
    });
    const read = AppDatabase.prototype.read;
    jest.spyOn(AppDatabase.prototype, 'read').mockImplementation(function (this: AppDatabase, tenant, sql, parameters) {
      statements.push(sql);
      return read.call(this, tenant, sql, parameters) as never;
    });
  });

  afterEach(() => jest.restoreAllMocks());

  const reads = () => statements.filter((sql) => !sql.includes('set_config'));

  test('reads a page with nested relations, aliases, fragments and the total', async () => {
    const { items } = await api.data(`{
      items(first: 30, orderBy: [{ price: ASC }]) {
        totalCount
        nodes { ...most }
        edges { node { name: title maker: brand { name parent { name } } brand { id version } } }
      }
    }
    fragment most on Item { title brandId brand { __typename name parent { name createdAt } } }`);
    expect(reads()).toHaveLength(1);
    expect(items.totalCount).toBe(30);
    expect(items.nodes[0]).toEqual({ title: '0', brandId: null, brand: null });
    expect(items.nodes[1]).toEqual({
      title: '1',
      brandId: brand,
      brand: {
        __typename: 'Brand',
        name: 'acme lamps',
        parent: { name: 'acme', createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) },
      },
    });
    expect(items.edges[1].node).toEqual({
      name: '1',
      maker: { name: 'acme lamps', parent: { name: 'acme' } },
      brand: { id: brand, version: 1 },
    });
  });

  test('reads one record with its relations', async () => {
    const { brand: found } = await api.data(
      'query ($id: ID!) { brand(id: $id) { name parent { parent { name } name } } }',
      { id: brand },
    );
    expect(reads()).toHaveLength(1);
    expect(found).toEqual({ name: 'acme lamps', parent: { name: 'acme', parent: null } });
  });

  test('counts only when asked for', async () => {
    await api.data('{ items { nodes { id } } }');
    expect(reads()[0]).not.toContain('count(*)');
    await api.data('query ($no: Boolean!) { items { totalCount @include(if: $no) nodes { id } } }', { no: false });
    expect(reads()[1]).not.toContain('count(*)');
  });

  test('a page whose nodes nobody asked for is still a page', async () => {
    expect((await api.data('{ items(first: 2) { pageInfo { hasNextPage } } }')).items).toEqual({
      pageInfo: { hasNextPage: true },
    });
    expect((await api.data('{ items(first: 1) { nodes { __typename } } }')).items).toEqual({
      nodes: [{ __typename: 'Item' }],
    });
  });

  test('the records of another tenant are not there, by any way', async () => {
    const [{ id }] = (await database.asOwner<{ id: string }>(`select id from model_item limit 1`)) as [{ id: string }];
    const both = 'query ($id: ID!) { item(id: $id) { id } items(where: { id: { equals: $id } }) { totalCount } }';
    expect(await api.data(both, { id })).toMatchObject({ item: { id }, items: { totalCount: 1 } });
    expect(await api.data(both, { id }, THEIRS)).toEqual({ item: null, items: { totalCount: 0 } });
    // A reference into another tenant, which only a fault elsewhere could have made, shows nothing.
    await insertItems([{ id: uuidv5(THEIRS, 'stray'), brandId: brand }], THEIRS);
    const stray = await api.data(
      'query ($id: ID!) { item(id: $id) { brandId brand { name } } }',
      { id: uuidv5(THEIRS, 'stray') },
      THEIRS,
    );
    expect(stray.item).toEqual({ brandId: brand, brand: null });
  });

  test('what is no id is no record', async () => {
    expect(await api.data('{ item(id: "1") { id } }')).toEqual({ item: null });
    expect(reads()).toEqual([]);
  });
});

/** A small generator whose runs can be repeated from their seed. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
