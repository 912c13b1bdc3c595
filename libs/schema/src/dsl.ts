import { CodedError } from '@atomo-cc/kernel';
import {
  columnOf,
  DEFAULT_MAX_LENGTH,
  snakeCase,
  type FieldDefinition,
  type FieldType,
  type SchemaDefinition,
} from './model.js';

/** What the author of a schema is told. */
export const SCHEMA_ERRORS = {
  SCHEMA_INVALID:
    'The schema.ts has faults; the message lists all of them with their place and an example of what is right.',
} as const;

type Attributes = Omit<FieldDefinition, 'name'>;

/** A declared field. `Value` is what it holds; fields are optional until `required()`. */
export class Field<Value, Required extends boolean = false> {
  declare readonly $value: Value;
  declare readonly $required: Required;

  constructor(readonly attributes: Attributes) {}

  /** Every record must have a value. */
  required(): Field<Value, true> {
    return new Field<Value, true>({ ...this.attributes, required: true });
  }

  /** What the field means, in a sentence; it becomes the documentation of the API. */
  describe(description: string): this {
    return this.with({ description });
  }

  /**
   * It tells something about a person. The log keeps it sealed under a key of the record, so that erasing the key erases the
   * value from all that ever happened. Not for relations: an id says nothing, and references are checked.
   */
  personal(): this {
    return this.with({ pii: 'personal' });
  }

  protected with(changed: Partial<Attributes>): this {
    return new (this.constructor as new (attributes: Attributes) => this)({ ...this.attributes, ...changed });
  }
}

/** A field of text. */
export class TextField extends Field<string> {
  /** The most characters it may have; 10,000 unless set. */
  max(maxLength: number): this {
    return this.with({ maxLength });
  }
}

/** A field that holds a number (IEEE 754 double precision). */
export class NumberField extends Field<number> {
  /** The least value allowed. */
  min(min: number): this {
    return this.with({ min });
  }

  /** The greatest value allowed. */
  max(max: number): this {
    return this.with({ max });
  }
}

function attributes(type: FieldType, more: Partial<Attributes> = {}): Attributes {
  const none = { description: null, maxLength: null, min: null, max: null, values: null, target: null, pii: null };
  return { type, required: false, ...none, ...more };
}

/** Text of any kind. */
export const text = (): TextField => new TextField(attributes('text', { maxLength: DEFAULT_MAX_LENGTH }));
/** An e-mail address; 320 characters is the longest there is (RFC 3696 erratum 1690 counts 64 + @ + 255). */
export const email = (): TextField => new TextField(attributes('email', { maxLength: 320 }));
/** A number. */
export const number = (): NumberField => new NumberField(attributes('number'));
/** True or false. */
export const boolean = (): Field<boolean> => new Field(attributes('boolean'));
/** A day of the calendar without a time, `2026-11-21`. */
export const date = (): Field<string> => new Field(attributes('date'));
/** One of the given words. */
export const enumeration = <const Values extends readonly [string, ...string[]]>(
  ...values: Values
): Field<Values[number]> => new Field(attributes('enum', { values }));
/** A record of another model (or of the same one). The API reads it as `company` and writes it as `companyId`. */
export const belongsTo = (target: string): Field<string> => new Field(attributes('relation', { target }));

/** A model as its author declares it. */
export interface ModelDeclaration {
  readonly description?: string;
  /** The name of the list in the API, where adding an s is wrong: `people`. */
  readonly plural?: string;
  readonly fields: Readonly<Record<string, Field<unknown, boolean>>>;
}

/** Fields that every record has, and words of the API's filters; an author cannot declare them. */
const OWN_FIELDS = ['id', 'version', 'createdAt', 'updatedAt', 'tenantId'];
const FILTER_WORDS = ['and', 'or', 'not'];
/** Names the API uses for itself on the query type, so no model may list or read under them. */
const PLATFORM_NAMES = [
  'me events auditLog projections connections memorySearch graphNodes graphNode historicalSyncJob historicalSyncJobs',
].flatMap((line) => line.split(' '));
/** Types of the API that are no model; two types of one name would stop the boot without saying where. */
const PLATFORM_TYPES = [
  'Query Mutation Subscription PageInfo Direction Event EventEdge EventConnection FieldChange',
  'String Int Float Boolean ID Date DateTime JSON',
].flatMap((line) => line.split(' '));
/** What GraphQL reads as something else than a value of an enum. */
const LITERALS = ['true', 'false', 'null'];
/** Postgres cuts names at 63 bytes; what is put before and behind them (`history_contact__b123456`) takes up to 17. */
const MAX_NAME = 46;

/**
 * Turns a declaration into its checked intermediate form.
 * @throws CodedError SCHEMA_INVALID listing every fault: the path inside the schema, what is wrong, what would be right
 */
export function defineSchema(declaration: { models: Readonly<Record<string, ModelDeclaration>> }): SchemaDefinition {
  const faults: string[] = [];
  const names = Object.keys(declaration?.models ?? {});
  if (names.length === 0)
    faults.push('models: there is none. Example: models: { Contact: { fields: { name: text().required() } } }');
  const taken = new Map<string, string>(PLATFORM_NAMES.map((name) => [name, 'the platform']));

  const models = names.map((name) => {
    const path = `models.${name}`;
    const given: unknown = declaration.models[name];
    if (typeof given !== 'object' || given === null)
      faults.push(`${path}: is no model. Example: ${name}: { fields: { name: text().required() } }`);
    const model = (typeof given === 'object' && given !== null ? given : { fields: {} }) as ModelDeclaration;
    if (PLATFORM_TYPES.includes(name)) {
      faults.push(`${path}: the API has a type ${name} of its own. Choose another name, such as Team${name}`);
    }
    if (!/^[A-Z][A-Za-z0-9]*$/.test(name) || snakeCase(name).length > MAX_NAME) {
      faults.push(
        `${path}: a model's name starts with a capital and has letters and digits only, at most ${MAX_NAME} (a capital counts twice). Example: Contact`,
      );
    }
    const singular = name.charAt(0).toLowerCase() + name.slice(1);
    const plural = model.plural ?? pluralOf(singular);
    if (!/^[a-z][A-Za-z0-9]*$/.test(plural)) {
      faults.push(
        `${path}.plural: ${JSON.stringify(plural)} cannot be a name of the API: it starts with a small letter and has letters and digits only. Example: people`,
      );
    }
    for (const used of [singular, plural, `${singular}History`]) {
      const owner = taken.get(used);
      if (owner)
        faults.push(
          `${path}: its name in the API, ${used}, belongs to ${owner}. Set another plural, or rename the model`,
        );
      taken.set(used, `model ${name}`);
    }
    const fields = Object.entries(model.fields ?? {}).map(([fieldName, field]) => {
      faults.push(...fieldFaults(`${path}.fields.${fieldName}`, fieldName, field, names));
      return { name: fieldName, ...(field instanceof Field ? field.attributes : attributes('text')) };
    });
    const columns = new Map<string, string>();
    for (const field of fields) {
      const column = columnOf(field);
      const other = columns.get(column);
      if (other)
        faults.push(`${path}.fields.${field.name}: is written under the same name as ${other}. Rename one of them`);
      columns.set(column, field.name);
    }
    if (fields.length === 0 && typeof given === 'object' && given !== null)
      faults.push(`${path}.fields: there is none. Example: fields: { name: text().required() }`);
    return {
      name,
      singular,
      plural,
      table: `model_${snakeCase(name)}`,
      description: model.description ?? null,
      fields,
    };
  });
  if (faults.length > 0) {
    throw new CodedError(
      'SCHEMA_INVALID',
      `the schema has ${faults.length} fault(s):\n${faults.map((fault) => `  ${fault}`).join('\n')}`,
    );
  }
  return { version: 1, models };
}

function fieldFaults(path: string, name: string, field: unknown, models: readonly string[]): string[] {
  const faults: string[] = [];
  if (!(field instanceof Field)) return [`${path}: is no field. Example: ${name}: text().required()`];
  if (!/^[a-z][A-Za-z0-9]*$/.test(name) || snakeCase(name).length > MAX_NAME) {
    faults.push(
      `${path}: a field's name starts with a small letter and has letters and digits only, at most ${MAX_NAME} (a capital counts twice). Example: firstName`,
    );
  }
  const { type, target, values, maxLength, min, max, pii } = field.attributes;
  for (const own of new Set([name, type === 'relation' ? `${name}Id` : name])) {
    if (OWN_FIELDS.includes(own)) {
      faults.push(`${path}: every record has ${own} already. Remove it, or choose another name`);
    }
  }
  if (FILTER_WORDS.includes(name)) faults.push(`${path}: ${name} is a word of the filters. Choose another name`);
  if (type === 'relation' && !models.includes(target ?? '')) {
    faults.push(`${path}: points at ${target}, which is no model. There are ${models.join(', ')}`);
  }
  if (type === 'relation' && pii !== null) {
    faults.push(`${path}: a relation cannot be personal, its id says nothing. Mark the fields of ${target} that do`);
  }
  for (const value of type === 'enum' ? (values ?? []) : []) {
    if (
      typeof value !== 'string' ||
      !/^[A-Za-z_][A-Za-z0-9_]*$/.test(value) ||
      value.startsWith('__') ||
      LITERALS.includes(value)
    ) {
      faults.push(
        `${path}: ${JSON.stringify(value)} cannot be a value of the API. Letters, digits and _ are allowed, but no true, false or null. Example: InProgress`,
      );
    }
  }
  if (type === 'enum' && !values?.length)
    faults.push(`${path}: has no values. Example: ${name}: enumeration('Open', 'Won')`);
  if (type === 'enum' && new Set(values).size !== values?.length)
    faults.push(`${path}: a value stands there twice. Remove one of them`);
  if (maxLength !== null && !(Number.isInteger(maxLength) && maxLength > 0))
    faults.push(`${path}: max(${maxLength}) is no whole number from 1 on. Example: max(100)`);
  for (const [word, bound] of [
    ['min', min],
    ['max', max],
  ] as const) {
    if (bound !== null && !Number.isFinite(bound))
      faults.push(`${path}: ${word}(${bound}) is no number. Example: ${word}(100)`);
  }
  if (min !== null && max !== null && min > max)
    faults.push(`${path}: min(${min}) is above max(${max}). Example: min(0).max(100)`);
  return faults;
}

function pluralOf(singular: string): string {
  if (/[^aeiou]y$/.test(singular)) return `${singular.slice(0, -1)}ies`;
  if (/(s|x|z|ch|sh)$/.test(singular)) return `${singular}es`;
  return `${singular}s`;
}
