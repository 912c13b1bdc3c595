import { buildSchema, execute, isObjectType, parse, type GraphQLResolveInfo } from 'graphql';
import { compileQuery, isCompiledQuery } from 'graphql-jit';
import { argumentsKeyOf, argumentsOf, mergeSelections, selectionAt, selectionOf, type Selection } from './selection.js';

const SDL = `type Query { item: Item }
  type Item { id: ID, name: String, brand: Brand, twin: Item }
  type Brand { id: ID, name: String, items(first: Int = 3, where: Fit): [Item] }
  input Fit { name: String, any: [ID] }`;

/** The selection below `item`, as a resolver sees it under graphql-js and under graphql-jit. */
function selected(source: string, variables: Record<string, unknown> = {}): object[] {
  const infos: GraphQLResolveInfo[] = [];
  const schema = buildSchema(SDL);
  schema.getQueryType()!.getFields()['item']!.resolve = (_source, _args, _context, info) => {
    infos.push(info);
    return null;
  };
  const document = parse(source);
  void execute({ schema, document, variableValues: variables });
  const compiled = compileQuery(schema, document);
  if (!isCompiledQuery(compiled)) throw new Error(JSON.stringify(compiled));
  void compiled.query(undefined, {}, variables);
  expect(infos.length).toBeGreaterThan(1);
  return infos.map((info) => plain(selectionOf(info)));
}

function plain(selection: Selection): object {
  return Object.fromEntries([...selection].map(([name, below]) => [name, plain(below)]));
}

function expectSelection(source: string, expected: object, variables?: Record<string, unknown>) {
  for (const found of selected(source, variables)) expect(found).toEqual(expected);
}

test('fields and what is asked for below them', () => {
  expectSelection('{ item { id brand { name } } }', { id: {}, brand: { name: {} } });
});

test('fragments, named and inline, are followed at every level', () => {
  expectSelection(
    `query { item { ...top ... on Item { twin { ...top } } } }
     fragment top on Item { name brand { ...label } }
     fragment label on Brand { name }`,
    { name: {}, brand: { name: {} }, twin: { name: {}, brand: { name: {} } } },
  );
});

test('a field under several aliases is one field with everything asked for', () => {
  expectSelection('{ item { a: brand { id } b: brand { name } n: name } }', { brand: { id: {}, name: {} }, name: {} });
});

test('a field with arguments is one for each of them, as their types read them', () => {
  const first = (count: number, below: object) => ({ [JSON.stringify({ first: count })]: below });
  expectSelection(
    `query ($n: Int = 5) { item {
      brand { items { id } a: items(first: $n) { id } ... on Brand { b: items(first: 5) { name } } }
      again: brand { a: items(first: 4) { id } c: items(first: 4, where: { any: "x", name: null }) { id } }
    } }`,
    {
      brand: {
        items: {
          ...first(3, { id: {} }),
          ...first(5, { id: {}, name: {} }),
          ...first(4, { id: {} }),
          [JSON.stringify({ first: 4, where: { name: null, any: ['x'] } })]: { id: {} },
        },
      },
    },
    { n: 5 },
  );
});

test('a field finds what was selected for its own arguments', () => {
  const schema = buildSchema(SDL);
  const [query, item, brand] = [schema.getQueryType()!, schema.getType('Item'), schema.getType('Brand')];
  if (!isObjectType(item) || !isObjectType(brand)) throw new Error('no such types');
  let selection: Selection = new Map();
  const keys: string[] = [];
  query.getFields()['item']!.resolve = (_source, _args, _context, info) => {
    selection = selectionOf(info);
    return {};
  };
  item.getFields()['brand']!.resolve = () => ({});
  brand.getFields()['items']!.resolve = (_source, args, _context, info) => {
    const key = argumentsKeyOf(info);
    expect(argumentsOf(key)).toEqual({ ...args });
    keys.push(key);
    return [];
  };
  const document = parse(
    'query ($n: Int) { item { brand { a: items(where: { any: ["1"] }) { id } b: items(first: $n) { id } } } }',
  );
  const compiled = compileQuery(schema, document);
  if (!isCompiledQuery(compiled)) throw new Error(JSON.stringify(compiled));
  void compiled.query(undefined, {}, { n: 2 });
  void execute({ schema, document, variableValues: { n: 2 } });
  const known = [...selectionAt(selection, 'brand', 'items').keys()];
  expect(known).toHaveLength(2);
  expect(keys).toEqual([...known, ...known]);
});

test('a field that stands there twice is one', () => {
  expectSelection('{ item { brand { id } } ...more } fragment more on Query { item { brand { name } id } }', {
    brand: { id: {}, name: {} },
    id: {},
  });
});

describe('@skip and @include', () => {
  const source = `query ($yes: Boolean!, $no: Boolean!) {
    item {
      id @include(if: $no)
      name @skip(if: $yes)
      twin @include(if: $yes) { id @skip(if: true) name }
      ... @include(if: $no) { brand { id } }
      ...label @skip(if: $no)
    }
  }
  fragment label on Item { brand { name } }`;

  test('are applied with the variables', () => {
    expectSelection(source, { twin: { name: {} }, brand: { name: {} } }, { yes: true, no: false });
  });

  test('are applied anew when the variables differ', () => {
    expectSelection(source, { id: {}, name: {}, brand: { id: {} } }, { yes: false, no: true });
  });
});

test('selections are looked into by path and put together', () => {
  const [selection] = selected('{ item { twin { brand { id } } brand { name } } }').map(deep);
  expect(plain(selectionAt(selection!, 'twin', 'brand'))).toEqual({ id: {} });
  expect(plain(selectionAt(selection!, 'twin', 'nothing', 'here'))).toEqual({});
  const merged = mergeSelections(selection!, deep({ brand: { id: {} }, id: {} }));
  expect(plain(merged)).toEqual({ twin: { brand: { id: {} } }, brand: { name: {}, id: {} }, id: {} });
});

function deep(fields: object): Selection {
  return new Map(Object.entries(fields).map(([name, below]) => [name, deep(below as object)]));
}
