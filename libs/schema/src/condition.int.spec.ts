import fc from 'fast-check';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { computeValue, conditionSql, expressionSql, holds, passes, sqlLiteral, type SqlParts } from './condition.js';
import { defineSchema } from './define-schema.js';
import { boolean, date, datetime, decimal, enumeration, integer, number, template, text } from './dsl.js';
import type { Condition, Expression, FieldDefinition, RecordValues, Scalar } from './model.js';

// Conditions and expressions are decided here and by Postgres; a rule that says one thing in one place and another in the
// other is a hole in the access rules. So both are asked, with all values that could tell them apart.

const [thing] = defineSchema({
  models: {
    Thing: {
      fields: {
        name: text(),
        other: text(),
        stage: enumeration('Open', 'Won'),
        isGood: boolean(),
        count: integer(),
        rank: integer(),
        price: decimal(12, 2),
        tax: decimal(12, 4),
        size: number(),
        born: date(),
        seen: datetime(),
      },
      computed: { label: template('{name}') },
    },
  },
}).models;
const model = thing!;

const TYPES: Readonly<Record<string, string>> = {
  name: 'text',
  other: 'text',
  stage: 'text',
  isGood: 'boolean',
  count: 'int',
  rank: 'int',
  price: 'numeric',
  tax: 'numeric',
  size: 'double precision',
  born: 'date',
  seen: 'timestamptz',
};

const values: Readonly<Record<string, readonly Scalar[]>> = {
  name: ['', 'a', 'A', 'ä', '👩', "it's", ' a ', '\n a\t', '10', '\\', 'b%'],
  other: ['', 'a', 'A', "it's"],
  stage: ['Open', 'Won'],
  isGood: [true, false],
  count: [0, 1, -1, 7, 2 ** 31 - 1, -(2 ** 31)],
  rank: [0, 1, 7],
  price: ['0.00', '1.00', '-1.50', '7.00', '9999999999.99'],
  tax: ['0.0000', '1.0000', '0.0001', '-1.5000'],
  size: [0, 1, 7, -1.5, 1e-7, 1e300, 0.1],
  born: ['0001-01-01', '2024-02-29', '2026-11-21', '9999-12-31'],
  seen: ['2026-11-21T07:25:18.123Z', '2026-11-21T07:25:18.124Z', '0001-01-01T00:00:00.000Z'],
};

const field = fc.constantFrom(...Object.keys(values));
const valueOf = (name: string) => fc.constantFrom(...values[name]!);
const record: fc.Arbitrary<RecordValues> = fc.record(
  Object.fromEntries(Object.keys(values).map((name) => [name, fc.option(valueOf(name), { freq: 1 })])),
);
const ordered = ['count', 'rank', 'price', 'tax', 'size', 'born', 'seen'];
const partners: Readonly<Record<string, readonly string[]>> = {
  name: ['name', 'other', 'stage'],
  count: ['rank', 'price', 'size'],
  price: ['tax', 'count'],
  size: ['count'],
  tax: ['price'],
};

const leaf: fc.Arbitrary<Condition> = field.chain((name): fc.Arbitrary<Condition> => {
  const operators = ordered.includes(name)
    ? (['equals', 'notEquals', 'gt', 'gte', 'lt', 'lte'] as const)
    : (['equals', 'notEquals'] as const);
  const value = valueOf(name).map((each) => ({ value: each }));
  const operand = partners[name]
    ? fc.oneof(
        value,
        fc.constantFrom(...partners[name]).map((each) => ({ field: each })),
      )
    : value;
  return fc.oneof(
    fc.record({ op: fc.constantFrom(...operators), field: fc.constant(name), operand }),
    fc.record({
      op: fc.constantFrom('in' as const, 'notIn' as const),
      field: fc.constant(name),
      values: fc.array(valueOf(name), { maxLength: 3 }),
    }),
    fc.record({ op: fc.constant('isNull' as const), field: fc.constant(name), isNull: fc.boolean() }),
    fc.record({
      op: fc.constantFrom('equals' as const, 'notEquals' as const),
      field: fc.constantFrom('name', 'stage'),
      operand: fc.constantFrom({ caller: 'id' as const }, { caller: 'role' as const }),
    }),
  );
});
const { condition } = fc.letrec<{ condition: Condition }>((tie) => ({
  condition: fc.oneof(
    { maxDepth: 3 },
    leaf,
    fc.record({
      op: fc.constantFrom('and' as const, 'or' as const),
      of: fc.array(tie('condition'), { minLength: 1, maxLength: 3 }),
    }),
    fc.record({ op: fc.constant('not' as const), of: tie('condition') }),
  ),
}));

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase([]);
});
afterAll(() => database?.drop());

/** The record as a row, whose columns have the types of its fields. */
function row(given: RecordValues): string {
  const column = (name: string) => {
    const value = given[name];
    return `${value === null || value === undefined ? 'null' : sqlLiteral(value as Scalar)}::${TYPES[name]} as "${name}"`;
  };
  return `(select ${Object.keys(TYPES).map(column).join(', ')}) t`;
}

const CALLER = { id: 'a', role: 'Won' };
const column = ({ name }: FieldDefinition) => `t."${name}"`;

test('a condition is met, broken or unknown here exactly where it is in SQL, with parameters and with literals', async () => {
  await fc.assert(
    fc.asyncProperty(condition, record, async (given, data) => {
      const parameters: unknown[] = [];
      const placed: SqlParts = { column, caller: CALLER, value: (value) => `$${parameters.push(value)}` };
      const literal: SqlParts = { column, caller: CALLER, value: sqlLiteral };
      const [placedSql, literalSql] = [conditionSql(model, given, placed), conditionSql(model, given, literal)];
      const rows = await database.asOwner<{ placed: boolean | null; literal: boolean | null }>(
        `select ${placedSql} as placed, ${literalSql} as literal from ${row(data)}`,
        parameters,
      );
      expect(rows[0]!.literal).toBe(rows[0]!.placed);
      expect(holds(model, given, data, CALLER)).toBe(rows[0]!.placed === true);
      if (!JSON.stringify(given).includes('caller')) expect(passes(model, given, data)).toBe(rows[0]!.placed !== false);
    }),
    { numRuns: 500 },
  );
});

const part = (names: readonly string[], fixed: readonly string[]) =>
  fc.oneof(
    fc.constantFrom(...names).map((name) => ({ field: name })),
    fc.constantFrom(...fixed).map((value) => ({ value })),
  );
const expression: fc.Arbitrary<Expression> = fc.oneof(
  fc.record({
    op: fc.constant('text' as const),
    parts: fc.array(part(['name', 'other', 'stage', 'count', 'price', 'born'], [' ', ', ', "it's ", '{']), {
      minLength: 1,
      maxLength: 4,
    }),
  }),
  fc.record({
    op: fc.constantFrom('sum' as const, 'difference' as const, 'product' as const),
    parts: fc.array(part(['count', 'rank', 'price', 'tax'], ['1.25', '-3', '0.001']), { minLength: 2, maxLength: 4 }),
  }),
);

test('a computed value is the same here and in SQL', async () => {
  await fc.assert(
    fc.asyncProperty(expression, record, async (given, data) => {
      const sql = expressionSql(model, given, { column, value: sqlLiteral });
      const rows = await database.asOwner<{ value: string | null; type: string }>(
        `select (${sql})::text as value, pg_typeof(${sql})::text as type from ${row(data)}`,
      );
      expect(rows[0]).toEqual({
        value: computeValue(model, given, data),
        type: given.op === 'text' ? 'text' : 'numeric',
      });
    }),
    { numRuns: 500, examples: [[{ op: 'text', parts: [{ field: 'name' }] }, { name: '\n a\t' }]] },
  );
});

test('a condition about the caller is not compiled for nobody', () => {
  const about: Condition = { op: 'equals', field: 'name', operand: { caller: 'id' } };
  expect(() => conditionSql(model, about, { column, value: sqlLiteral })).toThrow(RangeError);
  expect(holds(model, about, { name: 'a' })).toBe(false);
});
