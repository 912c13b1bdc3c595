import fc from 'fast-check';
import { belongsTo, caller, defineSchema, hasMany, template, text } from '@atomo-cc/schema';
import { aPrincipal, SHOP, SHOP_TENANTS } from '../testing/index.js';
import { compileGet, compileGetAgain, compileList, orderName, type ListQuery } from './query-compiler.js';
import { readerOf } from './record-access.js';

const [tenant] = SHOP_TENANTS;
const item = SHOP.models.find(({ name }) => name === 'Item')!;
const reader = readerOf(SHOP, aPrincipal(tenant));
const ID = '018f0000-0000-7000-8000-000000000001';
const ALL: ListQuery = {
  where: null,
  orderBy: [],
  after: null,
  limit: 3,
  node: new Map(),
  withTotal: false,
  withKeys: false,
};
const list = (query: Partial<ListQuery>) => compileList(reader, item, { ...ALL, ...query });
const refused = (code: string) => expect.objectContaining({ code });
const nested = (levels: number): Record<string, unknown> => (levels === 0 ? {} : { not: nested(levels - 1) });

const FIELDS: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  title: fc.string({ unit: 'grapheme' }).filter((value) => !value.includes('\0')),
  contactMail: fc.constantFrom("x' or '1'='1", "'; drop table model_item; --", '$1 $2 \\'),
  order: fc.constantFrom('asc; select pg_sleep(10)', '"id"', "') or true --"),
  price: fc.double({ min: 1e9, max: 1e12, noNaN: true }),
};
const OPERATORS = ['equals', 'not', 'gt', 'gte', 'lt', 'lte'];
const TEXT_OPERATORS = ['contains', 'startsWith', 'endsWith'];

test('no value ever stands in the SQL, whatever the field and operator', () => {
  const condition = fc
    .constantFrom(...Object.keys(FIELDS))
    .chain((field) =>
      fc.tuple(
        fc.constant(field),
        fc.constantFrom(...OPERATORS, 'in', ...(field === 'price' ? [] : TEXT_OPERATORS)),
        FIELDS[field]!,
      ),
    );
  fc.assert(
    fc.property(fc.array(condition, { minLength: 1, maxLength: 5 }), (conditions) => {
      const parts = conditions.map(([field, operator, value]) => ({
        [field]: { [operator]: operator === 'in' ? [value] : value },
      }));
      const empty = list({ where: { or: parts.map((part) => blank(part)) } });
      const { text, parameters } = list({ where: { or: parts } });
      // The same statement for other values: so none of it came from them.
      expect(text).toBe(empty.text);
      expect(parameters.length).toBe(conditions.length + 1);
    }),
  );
});

function blank(part: Record<string, Record<string, unknown>>): Record<string, Record<string, unknown>> {
  const value = (given: unknown): unknown =>
    Array.isArray(given) ? given.map(value) : typeof given === 'number' ? 0 : 'x';
  return Object.fromEntries(
    Object.entries(part).map(([field, operators]) => [
      field,
      Object.fromEntries(Object.entries(operators).map(([operator, given]) => [operator, value(given)])),
    ]),
  );
}

test('neither do the tenant, the id and the cursor; how many there are is a number by itself', () => {
  const get = compileGet(reader, item, ID, new Map([['title', new Map()]]));
  expect(get.text).not.toContain(tenant);
  expect(get.text).not.toContain(ID);
  expect(get.parameters).toEqual([tenant, ID]);
  const page = list({ orderBy: [{ title: 'ASC' }], after: ["'; --", ID], limit: 77 });
  for (const value of [tenant, ID, "'; --"]) expect(page.text).not.toContain(value);
  expect(page.text).toContain('limit 77)');
});

test('what is asked for again is asked as if for the first time, whoever asks', () => {
  const own = { where: { owner: { equals: caller.id } } };
  const schema = defineSchema({
    models: {
      Desk: { fields: { name: text(), owner: text() }, access: { read: { Manager: true, Sales: own, Viewer: true } } },
      Lamp: {
        fields: { name: text(), owner: text(), desk: belongsTo('Desk') },
        access: { read: { Manager: true, Sales: true, Viewer: own } },
      },
    },
  });
  const flat = new Map([['name', new Map()]]);
  const nestedIn = new Map([...flat, ['desk', flat]]);
  const none = new Map();
  const asked = SHOP_TENANTS.flatMap((of) =>
    ['Admin', 'Manager', 'Sales', 'Viewer'].map((role) => readerOf(schema, { ...aPrincipal(of), role })),
  );
  for (const again of [1, 2, 3]) {
    for (const each of [...asked, { ...asked[2]!, userId: null }]) {
      for (const model of schema.models) {
        for (const selection of model.name === 'Lamp' ? [none, flat, nestedIn] : [none, flat]) {
          const id = ID.replace('1', String(again));
          const { text: sql, parameters } = compileGet(each, model, id, selection);
          expect(compileGetAgain(each, model, id, selection)).toEqual({ text: sql, parameters });
        }
      }
    }
  }
});

test('a page begins where a range of an index begins, and those without a value are a range of their own', () => {
  expect(list({ after: [ID] }).text).toMatch(/and \(\(r1\."id"\) > \(\$\d+\)\) order by/);
  const { text: sql } = list({ orderBy: [{ title: 'ASC' }], after: ['t', ID] });
  const [values, empty] = sql.split(' union all ');
  expect(values).toMatch(/and \(\(r1\."title", r1\."id"\) > \(\$\d+, \$\d+\)\) order by/);
  expect(empty).toMatch(/and \(r1\."title" is null\) order by/);
  expect(list({ orderBy: [{ title: 'ASC' }], before: ['t', ID] }).text).toMatch(
    /and \(\(r1\."title", r1\."id"\) < \(\$\d+, \$\d+\)\) order by/,
  );
  // There is no such range where the order has two directions.
  expect(list({ orderBy: [{ title: 'DESC' }], after: ['t', ID] }).text).toMatch(
    /r1\."title" < \$\d+ or r1\."title" is null/,
  );
  expect(list({ orderBy: [{ createdAt: 'DESC' }, { id: 'DESC' }] }).text).toContain(
    '"created_at" desc, r1."id" desc limit',
  );
});

test('who may read what is computed and not what it is made of, compares and orders by the one and not by the other', () => {
  const schema = defineSchema({
    models: {
      Person: {
        fields: { first: text(), last: text() },
        computed: { full: template("{last}' {first}") },
        access: { read: { Viewer: ['full'], Sales: ['first'] } },
      },
    },
  });
  const compiled = (role: string, query: Partial<ListQuery>) =>
    compileList(readerOf(schema, { ...aPrincipal(tenant), role }), schema.models[0]!, { ...ALL, ...query });
  const byFull = { where: { full: { contains: 'x' } }, orderBy: [{ full: 'ASC' as const }] };
  expect(compiled('Viewer', byFull).text).toContain(`concat(r1."last"::text, ''' '::text::text, r1."first"::text)`);
  for (const [role, name] of [
    ['Viewer', 'last'],
    ['Sales', 'full'],
    ['Sales', 'last'],
  ] as const) {
    expect(() => compiled(role, { where: { [name]: { contains: 'x' } } })).toThrow(refused('VALIDATION_ERROR'));
    expect(() => compiled(role, { orderBy: [{ [name]: 'ASC' }] })).toThrow(refused('VALIDATION_ERROR'));
  }
});

test('neither do the arguments of lists below, nor conditions on related records', () => {
  const schema = defineSchema({
    models: {
      Person: { fields: { notes: hasMany('Note'), name: text() } },
      Note: { fields: { body: text(), person: belongsTo('Person') } },
    },
  });
  const person = schema.models[0]!;
  const compiled = (value: string, first: number) => {
    const where = { notes: { some: { body: { equals: value }, person: { isNot: { name: { in: [value] } } } } } };
    const key = JSON.stringify({ first, where: { body: { contains: value } } });
    const node = new Map([['notes', new Map([[key, new Map([['nodes', new Map([['body', new Map()]])]])]])]]);
    return compileList(readerOf(schema, aPrincipal(tenant)), person, { ...ALL, where, node });
  };
  fc.assert(
    fc.property(FIELDS['title'] as fc.Arbitrary<string>, fc.integer({ min: 1, max: 100 }), (value, first) => {
      const { text: sql, parameters } = compiled(value, first);
      expect(sql).toBe(compiled('x', first).text);
      expect(parameters).toContain(value);
    }),
  );
});

test('as of a time only histories are read, and the time stands in no SQL', () => {
  const asOf = '2026-01-02T03:04:05.678Z';
  const node = new Map([['brand', new Map([['parent', new Map([['name', new Map()]])]])]]);
  const get = compileGet(reader, item, ID, node, asOf);
  const page = list({ node, asOf, withTotal: true });
  for (const { text, parameters } of [get, page]) {
    expect(text).not.toContain(asOf);
    expect(parameters.filter((value) => value === asOf)).toHaveLength(1);
    expect(text).not.toMatch(/model_/);
  }
  expect(get.text.match(/from history_/g)).toHaveLength(3);
  expect(page.text.match(/from history_/g)).toHaveLength(4);
  expect(orderName(item, [], asOf)).not.toBe(orderName(item, []));
  expect(list({ node }).text).not.toMatch(/history_|valid_/);
});

test.each([
  'password',
  'tenant_id',
  'tenantId',
  'title"; drop table model_item; --',
  '__proto__',
  'constructor',
  'toString',
])('the unknown field %j is refused in where, in orderBy and in a selection', (name) => {
  const record = Object.fromEntries([[name, { equals: 'x' }]]);
  expect(() => list({ where: record })).toThrow(refused('VALIDATION_ERROR'));
  expect(() => list({ orderBy: [Object.fromEntries([[name, 'ASC']])] as never })).toThrow(refused('VALIDATION_ERROR'));
  if (name.startsWith('__')) return;
  expect(() => list({ node: new Map([[name, new Map()]]) })).toThrow(refused('VALIDATION_ERROR'));
});

test.each(['like', '=', 'gt; --', 'constructor', 'toString', '__proto__', 'hasOwnProperty'])(
  'the unknown operator %j is refused',
  (name) => {
    expect(() => list({ where: { title: Object.fromEntries([[name, 'x']]) } })).toThrow(refused('VALIDATION_ERROR'));
  },
);

test.each(['gt', 'gte', 'lt', 'lte', 'in', 'notIn', 'contains', 'startsWith', 'endsWith', 'isNull'])(
  '%s: null is refused',
  (operator) => {
    expect(() => list({ where: { title: { [operator]: null } } })).toThrow(refused('VALIDATION_ERROR'));
  },
);

test.each([
  ['a NUL', { title: { contains: 'a\0' } }],
  ['half a surrogate pair', { title: { in: ['fine', '\ud83d'] } }],
  ['no id', { id: { equals: '1' } }],
  ['no id among ids', { brandId: { in: [ID, "' or true"] } }],
])('%s as a value is refused', (_name, where) => expect(() => list({ where })).toThrow(refused('VALIDATION_ERROR')));

test('conditions nest ten levels deep and no deeper', () => {
  expect(() => list({ where: nested(10) })).not.toThrow();
  expect(() => list({ where: nested(11) })).toThrow(refused('QUERY_TOO_COMPLEX'));
  const mixed = Array.from({ length: 11 }).reduce<Record<string, unknown>>(
    (inner, _, at) => ({ [at % 2 ? 'or' : 'and']: [inner] }),
    {},
  );
  expect(() => list({ where: mixed })).toThrow(refused('QUERY_TOO_COMPLEX'));
});

test.each(['and', 'or'])('%s takes a thousand conditions and no more', (name) => {
  const conditions = (length: number) => ({ [name]: Array.from({ length }, () => ({ inStock: { equals: true } })) });
  expect(() => list({ where: conditions(1_000) })).not.toThrow();
  expect(() => list({ where: conditions(1_001) })).toThrow(refused('QUERY_TOO_COMPLEX'));
});

test.each(['in', 'notIn'])('%s takes a thousand members and no more', (name) => {
  const members = (length: number) => ({ title: { [name]: Array.from({ length }, () => 'x') } });
  expect(() => list({ where: members(1_000) })).not.toThrow();
  expect(() => list({ where: members(1_001) })).toThrow(refused('QUERY_TOO_COMPLEX'));
});

test('a whole query has a bounded number of values, however they are spread', () => {
  const row = { and: Array.from({ length: 1_000 }, () => ({ title: { equals: 'x' } })) };
  expect(() => list({ where: { and: [row] } })).not.toThrow();
  expect(() => list({ where: { and: [row, row] } })).toThrow(refused('QUERY_TOO_COMPLEX'));
});

test.each([
  ['no entry', {}],
  ['two fields', { title: 'ASC', price: 'ASC' }],
])('an entry of orderBy with %s is refused', (_name, entry) => {
  expect(() => list({ orderBy: [entry as never] })).toThrow(refused('VALIDATION_ERROR'));
});

test('cursors of one order are no cursors of another; keys behind the id do not count', () => {
  const name = (...orderBy: ListQuery['orderBy']) => orderName(item, orderBy);
  expect(name({ title: 'ASC' })).not.toBe(name({ title: 'DESC' }));
  expect(name({ title: 'ASC' })).not.toBe(name({ title: 'ASC' }, { price: 'ASC' }));
  expect(name({ id: 'DESC' }, { title: 'ASC' })).toBe(name({ id: 'DESC' }));
  expect(name({ title: 'ASC' }, { title: 'DESC' })).toBe(name({ title: 'ASC' }));
});

describe('a forged cursor is refused before Postgres sees it', () => {
  const MOMENT = '2026-11-21T07:25:18.123456+00:00';
  test.each<[Record<string, 'ASC'>, unknown[], boolean]>([
    [{ title: 'ASC' }, ['a', ID], true],
    [{ title: 'ASC' }, [null, ID], true],
    [{ title: 'ASC' }, ['a'], false],
    [{ title: 'ASC' }, ['a', ID, ID], false],
    [{ title: 'ASC' }, ['a\0', ID], false],
    [{ title: 'ASC' }, [{ a: 1 }, ID], false],
    [{ title: 'ASC' }, ['a', 'x'], false],
    [{ title: 'ASC' }, ['a', null], false],
    [{ price: 'ASC' }, [1.5, ID], true],
    [{ price: 'ASC' }, ['1.5', ID], false],
    [{ inStock: 'ASC' }, [true, ID], true],
    [{ inStock: 'ASC' }, ['maybe', ID], false],
    [{ arrivesOn: 'ASC' }, ['2026-02-28', ID], true],
    [{ arrivesOn: 'ASC' }, ['2026-02-30', ID], false],
    [{ createdAt: 'ASC' }, [MOMENT, ID], true],
    [{ createdAt: 'ASC' }, ['2026-02-30T07:25:18+00:00', ID], false],
    [{ createdAt: 'ASC' }, ['now', ID], false],
    [{ createdAt: 'ASC' }, [null, ID], false],
    [{ version: 'ASC' }, [2, ID], true],
    [{ version: 'ASC' }, [1e20, ID], false],
  ])('%j %j: fine %p', (order, after, fine) => {
    const compile = () => list({ orderBy: [order], after });
    if (fine) expect(compile).not.toThrow();
    else expect(compile).toThrow(refused('VALIDATION_ERROR'));
  });
});
