import type { FieldDefinition, FieldValue } from '@atomo-cc/schema';
import { booleanArray, doubleArray, intArray, jsonArray, textArray } from '@atomo-cc/platform/postgres';

/** The type of the column in which a history keeps the ids that a record was linked to. */
export const LINK_COLUMN_TYPE = 'uuid[]';

/** The types of parameters that hold a column's values; what is not listed comes as `text[]` and is cast. */
export const ARRAY_TYPES: Readonly<Partial<Record<FieldDefinition['type'], string>>> = {
  number: 'double precision[]',
  integer: 'int[]',
  boolean: 'boolean[]',
  json: 'jsonb[]',
  geoPoint: 'jsonb[]',
  blocks: 'jsonb[]',
};

/**
 * A column's values as a parameter of its array type. Where one is of another kind than the field (it was written when the
 * field had another type), the array is one of texts, and Postgres reads them as the column's type or refuses them.
 */
export function columnArray(field: FieldDefinition, values: readonly FieldValue[]): Buffer | (string | null)[] {
  switch (field.type) {
    case 'json':
    case 'geoPoint':
    case 'blocks':
      return jsonArray(values.map((value) => (value === null ? null : JSON.stringify(value))));
    case 'number':
      return values.every(isOrNull(isNumber)) ? doubleArray(values) : texts(values);
    case 'integer':
      return values.every(isOrNull(isInteger)) ? intArray(values) : texts(values);
    case 'boolean':
      return values.every(isOrNull(isBoolean)) ? booleanArray(values) : texts(values);
    default:
      return values.every(isOrNull(isText)) ? textArray(values) : texts(values);
  }
}

const isNumber = (value: FieldValue): value is number => typeof value === 'number';
const isInteger = (value: FieldValue): value is number =>
  Number.isInteger(value) && Math.abs(value as number) < 2 ** 31;
const isBoolean = (value: FieldValue): value is boolean => typeof value === 'boolean';
const isText = (value: FieldValue): value is string => typeof value === 'string';
const isOrNull =
  <Kind extends FieldValue>(is: (value: FieldValue) => value is Kind) =>
  (value: FieldValue): value is Kind | null =>
    value === null || is(value);

function texts(values: readonly FieldValue[]): (string | null)[] {
  return values.map((value) => (value === null || typeof value === 'string' ? value : JSON.stringify(value)));
}
