import { buildSchema, getIntrospectionQuery, parse, validate } from 'graphql';
import {
  brokenLimit,
  MAX_ALIASES,
  MAX_DEPTH,
  MAX_DOCUMENT_CHARACTERS,
  MAX_DOCUMENT_TOKENS,
  MAX_FIELDS,
  MAX_INPUT_DEPTH,
  MAX_ROOT_FIELDS,
  readDocument,
  tooDeepVariable,
} from './document-limits.js';

const limitOf = (text: string) => brokenLimit(parse(text))?.extensions['limit'];
const times = (count: number, text: (n: number) => string) =>
  Array.from({ length: count }, (_, n) => text(n)).join(' ');
const nested = (depth: number, open: string, inner: string, close: string) =>
  open.repeat(depth) + inner + close.repeat(depth);

test.each([
  ['MAX_FIELDS', MAX_FIELDS, (n: number) => `{ a { ${times(n - 1, () => 'b')} } }`],
  ['MAX_FIELDS', MAX_FIELDS, (n: number) => `{ a { ...F } } fragment F on A { ${times(n - 1, () => 'b')} }`],
  ['MAX_FIELDS', MAX_FIELDS, (n: number) => `{ a } fragment F on A { ${times(n, () => 'b')} }`],
  ['MAX_DEPTH', MAX_DEPTH, (n: number) => nested(n, '{ a ', '', '}')],
  ['MAX_DEPTH', MAX_DEPTH, (n: number) => `{ a ... { ...F } } fragment F on A ${nested(n, '{ a ', '', '}')}`],
  ['MAX_ALIASES', MAX_ALIASES, (n: number) => `{ a { ${times(n, (at) => `x${at}: b`)} } }`],
  ['MAX_ROOT_FIELDS', MAX_ROOT_FIELDS, (n: number) => `mutation { ${times(n, () => 'a')} }`],
  [
    'MAX_ROOT_FIELDS',
    MAX_ROOT_FIELDS,
    (n: number) => `{ ...F a ... { b } } fragment F on A { ${times(n - 2, () => 'a')} }`,
  ],
  ['MAX_INPUT_DEPTH', MAX_INPUT_DEPTH, (n: number) => `{ a(x: ${nested(n, '[', '1', ']')}) }`],
  ['MAX_INPUT_DEPTH', MAX_INPUT_DEPTH, (n: number) => `query ($x: X = ${nested(n, '{ a: ', '1', '}')}) { a }`],
  ['MAX_INPUT_DEPTH', MAX_INPUT_DEPTH, (n: number) => `query ($x: ${nested(n, '[', 'X', ']')}) { a }`],
])('%s: %i is allowed, one more is not (case %#)', (limit, max, text) => {
  expect(limitOf(text(max))).toBeUndefined();
  expect(limitOf(text(max + 1))).toBe(limit);
});

test('a document is not read beyond its limits', () => {
  const limitOfText = (text: string) => {
    try {
      return readDocument(text).kind;
    } catch (error) {
      return (error as { extensions?: { limit?: string } }).extensions?.limit;
    }
  };
  expect(limitOfText('{ a }'.padEnd(MAX_DOCUMENT_CHARACTERS))).toBe('Document');
  expect(limitOfText('{ a }'.padEnd(MAX_DOCUMENT_CHARACTERS + 1))).toBe('MAX_DOCUMENT_CHARACTERS');
  expect(limitOfText(`{${'a '.repeat(MAX_DOCUMENT_TOKENS - 2)}}`)).toBe('Document');
  expect(limitOfText(`{${'a '.repeat(MAX_DOCUMENT_TOKENS - 1)}}`)).toBe('MAX_DOCUMENT_TOKENS');
  expect(limitOfText('{')).toBeUndefined();
});

test('fragments that double each other are counted, not expanded', () => {
  const doubling = times(90, (n) => `fragment F${n} on A { ...F${n + 1} ...F${n + 1} }`);
  expect(limitOf(`{ ...F0 } ${doubling} fragment F90 on A { a }`)).toBe('MAX_FIELDS');
});

test.each([
  ['fields', (n: number) => `{ a ${'{ a '.repeat(n)}${'}'.repeat(n)} }`],
  ['inline fragments', (n: number) => `{ ${'... { '.repeat(n)} a ${'}'.repeat(n)} }`],
  [
    'fragments',
    (n: number) => `{ ...F0 } ${times(n, (at) => `fragment F${at} on A { ...F${at + 1} }`)} fragment F${n} on A { a }`,
  ],
])('no depth of %s is too much to be refused', (_name, text) => {
  for (const n of [150, 1_500]) expect(limitOf(text(n))).toBe('MAX_DEPTH');
});

test('fragments in circles end, however they are tied', () => {
  expect(limitOf('{ a ...F } fragment F on A { ...G } fragment G on A { b ...F }')).toBeUndefined();
  const spreads = times(60, (n) => `...F${n}`);
  expect(limitOf(`{ a ...F0 } ${times(60, (n) => `fragment F${n} on A { a ${spreads} }`)}`)).toBe('MAX_FIELDS');
});

test('introspection as tools ask it passes; lists within lists do not, also through fragments', () => {
  expect(limitOf(getIntrospectionQuery({ inputValueDeprecation: true, oneOf: true } as object))).toBeUndefined();
  expect(limitOf('{ __schema { types { fields { type { possibleTypes { name } } } } } }')).toBe(
    'MAX_INTROSPECTED_LISTS',
  );
  expect(
    limitOf(
      '{ ...R } fragment R on Query { __type(name: "A") { ...T } } fragment T on __Type { fields { type { ...U } } } fragment U on __Type { fields { name } }',
    ),
  ).toBe('MAX_INTROSPECTED_LISTS');
  // A model may have such names.
  expect(limitOf('{ farm { fields { crop { fields { name } } } } }')).toBeUndefined();
});

test('variables as deep as allowed pass, and no depth is too much to be refused', () => {
  const deep = (depth: number) => JSON.parse(nested(depth, '[', '', ']')) as unknown;
  expect(tooDeepVariable({ a: deep(MAX_INPUT_DEPTH), b: null, c: 'x' })).toBeNull();
  expect(tooDeepVariable({ a: deep(MAX_INPUT_DEPTH + 1) })?.extensions).toMatchObject({ limit: 'MAX_INPUT_DEPTH' });
  let far: unknown = 1;
  for (let n = 0; n < 1_000_000; n += 1) far = { far };
  expect(tooDeepVariable({ far })?.extensions).toMatchObject({ limit: 'MAX_INPUT_DEPTH' });
  expect(tooDeepVariable(null)).toBeNull();
});

test('the check of the worst that is let through takes no long time', () => {
  const schema = buildSchema('type Query { a: Query b(x: Int): Int }');
  const worst = [
    `{ a { ${times(MAX_FIELDS - 1, () => 'b')} } }`,
    `{ a { ${times(30, () => `a { ${times(30, () => 'b')} }`)} } }`,
    `{ a { ${times(MAX_ALIASES, (n) => `x: b(x: ${n})`)} } }`,
    ...[10, 40].map(
      (count) =>
        `{ a { ${times(count, (n) => `...F${n}`)} } } ${times(count, (n) => `fragment F${n} on Query { ${times(Math.floor(990 / count), () => 'b')} }`)}`,
    ),
  ];
  for (const text of worst) {
    const document = readDocument(text);
    expect(brokenLimit(document)).toBeNull();
    const from = performance.now();
    validate(schema, document);
    expect(performance.now() - from).toBeLessThan(3_000);
  }
});
