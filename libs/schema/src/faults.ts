import { CodedError } from '@atomo-cc/kernel';
import type { Block } from './dsl.js';
import type { BlockDefinition, FieldType } from './model.js';

/** Something wrong in a schema: where in it, what is wrong, and an example of what is right. */
export interface SchemaFault {
  /** `models.Contact.fields.email` */
  readonly path: string;
  readonly message: string;
  /** Where in the file, from 1 on, as far as it is known. */
  readonly line?: number;
  readonly column?: number;
}

/**
 * The error that tells all faults of a schema, a line each, and carries them in `details.faults`.
 * @param file its name, to be put before the lines and columns
 */
export function schemaInvalid(faults: readonly SchemaFault[], file = ''): CodedError {
  const lines = faults.map(({ path, message, line, column }) => {
    const place = line === undefined ? '' : `${[file, line, column].filter(Boolean).join(':')} `;
    return `  ${place}${path}: ${message}`;
  });
  return new CodedError('SCHEMA_INVALID', `the schema has ${faults.length} fault(s):\n${lines.join('\n')}`, { faults });
}

/** Where faults are told. */
export interface Found {
  readonly faults: SchemaFault[];
  add(path: string, message: string): void;
}

/** What the checks of a schema share. */
export interface Context extends Found {
  /** Of all models. */
  readonly names: readonly string[];
  readonly roles: readonly string[];
  readonly blocks: Map<string, { readonly block: Block; readonly path: string; definition: BlockDefinition | null }>;
}

/** While it is being made. */
export type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** An object that is no list. */
export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
/** A list of strings. */
export const isStrings = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((each) => typeof each === 'string');
/** A value as a message shows it. */
export function quoted(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    // A bigint, or something that holds itself.
    return Object.prototype.toString.call(value);
  }
}

/** What is wrong with a relation that leads nowhere. */
export function noModel({ names }: Pick<Context, 'names'>, target: unknown, word: string): string {
  const there = `There are ${names.join(', ')}`;
  if (typeof target === 'string') return `points at ${target}, which is no model. ${there}`;
  return `names no model. ${there}. Example: ${word}('${names[0]}')`;
}

/** Tells of words that mean nothing, which are mostly misspelt. */
export function unknownKeys(found: Found, path: string, given: object, known: readonly string[]): void {
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) found.add(path, `${key} means nothing here. There are ${known.join(', ')}`);
  }
}

/** A list that may be left out. */
export function listOf<Item>(
  context: Context,
  path: string,
  given: readonly Item[] | undefined,
  example: string,
): readonly Item[] {
  if (given === undefined) return [];
  if (Array.isArray(given)) return given as readonly Item[];
  context.add(path, `is no list. Example: [${example}]`);
  return [];
}

/** Types that hold text. */
export const TEXTS: readonly FieldType[] = ['text', 'richText', 'email', 'url', 'slug'];
/** Types that have an order by size. */
export const NUMBERS: readonly FieldType[] = ['integer', 'decimal', 'number'];
/** Types that have an order in time. */
export const TIMES: readonly FieldType[] = ['date', 'datetime'];
/** Without equality, order or index. */
export const SHAPES: readonly FieldType[] = ['json', 'geoPoint', 'blocks'];
