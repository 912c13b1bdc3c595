import {
  fieldNamed,
  inputName,
  type ComparisonOperator,
  type Condition,
  type Expression,
  type ExpressionPart,
  type FieldDefinition,
  type FieldType,
  type FieldValue,
  type ModelDefinition,
  type Operand,
  type RecordValues,
  type Scalar,
} from './model.js';

/**
 * Deciding conditions and making computed values, here and in SQL alike. What a condition can say is limited to what both
 * sides decide the same: no order of texts (collations differ), no case folding, no arithmetic on doubles.
 */

/** Who asks, as far as row rules may know. */
export interface Caller {
  /** Null of a machine: no user. */
  readonly id: string | null;
  readonly role: string;
}

/** What conditions and expressions are about: a model, or anything else with fields. */
type Fields = Pick<ModelDefinition, 'name' | 'fields'>;

/**
 * Whether a condition is met. An unknown, such as a comparison with a field that has no value, does not meet it.
 * @param values by the names under which fields are written; what is missing has no value
 */
export function holds(model: Fields, condition: Condition, values: RecordValues, caller?: Caller): boolean {
  return decide(model, condition, values, caller) === true;
}

/** Whether a condition is not broken: unlike `holds`, an unknown passes, as it does in a check constraint of SQL. */
export function passes(model: Fields, condition: Condition, values: RecordValues): boolean {
  return decide(model, condition, values) !== false;
}

/** Three-valued, as SQL is; null is unknown. */
function decide(model: Fields, condition: Condition, values: RecordValues, caller?: Caller): boolean | null {
  switch (condition.op) {
    case 'and':
    case 'or': {
      const decisive = condition.op === 'or';
      const parts = condition.of.map((part) => decide(model, part, values, caller));
      if (parts.includes(decisive)) return decisive;
      return parts.includes(null) ? null : !decisive;
    }
    case 'not':
      return decide(model, condition.of, values, caller) !== true;
    case 'isNull':
      return (valueOf(model, condition.field, values) === null) === condition.isNull;
    case 'in':
    case 'notIn': {
      const { type } = fieldNamed(model, condition.field);
      const value = valueOf(model, condition.field, values);
      const isIn = value !== null && condition.values.some((each) => compare(type, value, each) === 0);
      // As in the API's filters: a record without a value is in no list.
      return condition.op === 'in' ? isIn : !isIn;
    }
    default: {
      const { type } = fieldNamed(model, condition.field);
      const value = valueOf(model, condition.field, values);
      const other = operandOf(model, condition.operand, values, caller);
      if (condition.op === 'notEquals') {
        // Told apart as `is distinct from` does: two missing values are the same, one is different from any value.
        return value === null || other === null ? value !== other : compare(type, value, other) !== 0;
      }
      if (value === null || other === null) return null;
      return COMPARISONS[condition.op](compare(type, value, other));
    }
  }
}

const COMPARISONS: Readonly<Record<Exclude<ComparisonOperator, 'notEquals'>, (order: number) => boolean>> = {
  equals: (order) => order === 0,
  gt: (order) => order > 0,
  gte: (order) => order >= 0,
  lt: (order) => order < 0,
  lte: (order) => order <= 0,
};

function valueOf(model: Fields, name: string, values: RecordValues): Scalar | null {
  return (values[inputName(fieldNamed(model, name))] ?? null) as Scalar | null;
}

function operandOf(model: Fields, operand: Operand, values: RecordValues, caller?: Caller): Scalar | null {
  if ('value' in operand) return operand.value;
  if ('field' in operand) return valueOf(model, operand.field, values);
  return caller?.[operand.caller] ?? null;
}

/** The order of two values of a type: negative, zero or positive. Only equality means something for texts. */
function compare(type: FieldType, a: Scalar, b: Scalar): number {
  if (type === 'integer' || type === 'decimal' || type === 'number') {
    if (typeof a === 'number' && typeof b === 'number') return a - b;
    return compareDecimals(String(a), String(b));
  }
  if (type === 'datetime') return Date.parse(String(a)) - Date.parse(String(b));
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

/** Whether two stored values of a field say the same, however a row or a JSON text may have written them. */
export function isSameValue(field: Pick<FieldDefinition, 'type'>, a: FieldValue, b: FieldValue): boolean {
  if (a === b) return true;
  if (a === null || b === null) return false;
  if (typeof a === 'object' || typeof b === 'object') return isSameJson(a, b);
  if (field.type === 'decimal' || field.type === 'datetime') return compare(field.type, a, b) === 0;
  return false;
}

/** Equal but for the order of keys, which Postgres' jsonb does not keep. */
function isSameJson(a: FieldValue, b: FieldValue): boolean {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [left, right] = [a as Record<string, FieldValue>, b as Record<string, FieldValue>];
  const keys = Object.keys(left);
  return (
    keys.length === Object.keys(right).length &&
    keys.every((key) => Object.hasOwn(right, key) && isSameJson(left[key]!, right[key]!))
  );
}

interface Decimal {
  readonly digits: bigint;
  readonly scale: number;
}

/** A number as its exact decimal digits; also of the way JavaScript writes very large and small doubles, `1e-7`. */
function readDecimal(text: string): Decimal {
  const [mantissa = '', exponent = '0'] = text.toLowerCase().split('e');
  const [whole = '', fraction = ''] = mantissa.split('.');
  const scale = fraction.length - Number(exponent);
  const digits = BigInt(whole + fraction);
  return scale < 0 ? { digits: digits * 10n ** BigInt(-scale), scale: 0 } : { digits, scale };
}

/** The digits at a greater scale. */
const scaledTo = ({ digits, scale }: Decimal, wanted: number) => digits * 10n ** BigInt(wanted - scale);

/** The order of two decimal numbers, exactly. */
export function compareDecimals(a: string, b: string): number {
  const [left, right] = [readDecimal(a), readDecimal(b)];
  const scale = Math.max(left.scale, right.scale);
  const difference = scaledTo(left, scale) - scaledTo(right, scale);
  return difference === 0n ? 0 : difference < 0n ? -1 : 1;
}

function writeDecimal(digits: bigint, scale: number): string {
  const text = (digits < 0n ? -digits : digits).toString().padStart(scale + 1, '0');
  const point = scale === 0 ? text : `${text.slice(0, -scale)}.${text.slice(-scale)}`;
  return digits < 0n ? `-${point}` : point;
}

/** The digits behind the point that a calculation has: of a product the sum of its factors', else the most of any part. */
export function scaleOf(model: Fields, { op, parts }: Expression): number {
  const scales = parts.map((part) =>
    'field' in part ? (fieldNamed(model, part.field).scale ?? 0) : readDecimal(part.value).scale,
  );
  return op === 'product' ? scales.reduce((sum, scale) => sum + scale, 0) : Math.max(0, ...scales);
}

/**
 * Makes the value of a computed field. A calculation with a missing value has none; a text takes it as empty, is trimmed of
 * spaces, and is null when nothing is left.
 */
export function computeValue(model: Fields, expression: Expression, values: RecordValues): string | null {
  const parts = expression.parts.map((part) =>
    'field' in part ? valueOf(model, part.field, values) : (part.value as Scalar),
  );
  if (expression.op === 'text') {
    const text = parts.map((part) => (part === null ? '' : String(part))).join('');
    return text.replaceAll(/^ +| +$/g, '') || null;
  }
  if (parts.includes(null)) return null;
  const scale = scaleOf(model, expression);
  const numbers = parts.map((part) => readDecimal(String(part)));
  if (expression.op === 'product') {
    const exact = numbers.reduce((product, next) => ({
      digits: product.digits * next.digits,
      scale: product.scale + next.scale,
    }));
    return writeDecimal(scaledTo(exact, Math.max(scale, exact.scale)), Math.max(scale, exact.scale));
  }
  const wide = Math.max(scale, ...numbers.map((number) => number.scale));
  const [first = 0n, ...rest] = numbers.map((number) => scaledTo(number, wide));
  const digits = rest.reduce((sum, next) => (expression.op === 'sum' ? sum + next : sum - next), first);
  return writeDecimal(digits, wide);
}

/** The fields that a condition names, as they are declared. */
export function conditionFields(condition: Condition): string[] {
  switch (condition.op) {
    case 'and':
    case 'or':
      return condition.of.flatMap(conditionFields);
    case 'not':
      return conditionFields(condition.of);
    case 'in':
    case 'notIn':
    case 'isNull':
      return [condition.field];
    default:
      return [condition.field, ...('field' in condition.operand ? [condition.operand.field] : [])];
  }
}

/** Where the SQL of a condition takes its parts from. */
export interface SqlParts {
  /** The column of a field: `t."stage"`. */
  column(field: FieldDefinition): string;
  /** A place for a value, `$3`, or a literal where there are no parameters. */
  value(value: Scalar | readonly Scalar[]): string;
  /** Who asks; needed where the condition names the caller. */
  readonly caller?: Caller;
}

/**
 * One SQL expression that is true, false or null exactly where the condition is met, broken or unknown.
 * @throws RangeError when the condition names the caller and there is none
 */
export function conditionSql(model: Fields, condition: Condition, sql: SqlParts): string {
  switch (condition.op) {
    case 'and':
    case 'or': {
      if (condition.of.length === 0) return condition.op === 'and' ? 'true' : 'false';
      return `(${condition.of.map((part) => conditionSql(model, part, sql)).join(` ${condition.op} `)})`;
    }
    case 'not':
      return `((${conditionSql(model, condition.of, sql)}) is not true)`;
    case 'isNull':
      return `(${sql.column(fieldNamed(model, condition.field))} is ${condition.isNull ? '' : 'not '}null)`;
    case 'in':
    case 'notIn': {
      const field = fieldNamed(model, condition.field);
      const list = `(${sql.column(field)} = any(${sql.value(condition.values)}::${COLUMN_TYPES[field.type]}[]))`;
      return `(${list} is ${condition.op === 'in' ? '' : 'not '}true)`;
    }
    default: {
      const field = fieldNamed(model, condition.field);
      const { column, other } = operandSql(model, field, condition.operand, sql);
      return `(${column} ${SQL_COMPARISONS[condition.op]} ${other})`;
    }
  }
}

function operandSql(model: Fields, field: FieldDefinition, operand: Operand, sql: SqlParts) {
  const column = sql.column(field);
  if ('field' in operand) return { column, other: sql.column(fieldNamed(model, operand.field)) };
  if ('value' in operand) return { column, other: `${sql.value(operand.value)}::${COLUMN_TYPES[field.type]}` };
  if (!sql.caller) throw new RangeError('a condition about the caller was compiled for nobody');
  // Compared as texts, because an id that is no UUID must compare as different and not as an error.
  const asked = sql.caller[operand.caller];
  return { column: `${column}::text`, other: `${asked === null ? 'null' : sql.value(asked)}::text` };
}

const SQL_COMPARISONS: Readonly<Record<ComparisonOperator, string>> = {
  equals: '=',
  notEquals: 'is distinct from',
  gt: '>',
  gte: '>=',
  lt: '<',
  lte: '<=',
};

/** The type of the column that holds a field, and of the values that it is compared with. */
export const COLUMN_TYPES: Readonly<Record<FieldType, string>> = {
  text: 'text',
  richText: 'text',
  email: 'text',
  url: 'text',
  slug: 'text',
  integer: 'int',
  decimal: 'numeric',
  number: 'double precision',
  boolean: 'boolean',
  date: 'date',
  datetime: 'timestamptz',
  json: 'jsonb',
  enum: 'text',
  file: 'uuid',
  geoPoint: 'jsonb',
  blocks: 'jsonb',
  relation: 'uuid',
};

/** One SQL expression that makes what `computeValue` makes: a text, or of a calculation a numeric, which as text has the same digits. */
export function expressionSql(model: Fields, { op, parts }: Expression, sql: Omit<SqlParts, 'caller'>): string {
  const place = (part: ExpressionPart, type: string) =>
    'field' in part
      ? `${sql.column(fieldNamed(model, part.field))}::${type}`
      : `${sql.value(part.value)}::text::${type}`;
  if (op === 'text') return `nullif(btrim(concat(${parts.map((part) => place(part, 'text')).join(', ')}), ' '), '')`;
  const operator = { sum: '+', difference: '-', product: '*' }[op];
  return `(${parts.map((part) => place(part, 'numeric')).join(` ${operator} `)})`;
}

/** A value as an SQL literal, for statements that take no parameters, such as those that make constraints and indexes. */
export function sqlLiteral(value: Scalar | readonly Scalar[]): string {
  if (Array.isArray(value)) return value.length === 0 ? "'{}'" : `array[${value.map(sqlLiteral).join(', ')}]`;
  if (typeof value === 'string') return `'${value.replaceAll("'", "''")}'`;
  // A cast binds closer than a sign: -2147483648::int would be out of range.
  return typeof value === 'number' ? `(${value})` : String(value);
}
