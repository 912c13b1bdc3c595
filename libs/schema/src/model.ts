/** The kinds of field that a model may have. */
export type FieldType = 'text' | 'email' | 'number' | 'boolean' | 'date' | 'enum' | 'relation';

/** A field as the rest of the system sees it: plain data, the same whatever form the author wrote. */
export interface FieldDefinition {
  readonly name: string;
  readonly type: FieldType;
  readonly required: boolean;
  readonly description: string | null;
  /** Text: the most characters (UTF-16 units, as JavaScript counts) it may have. */
  readonly maxLength: number | null;
  /** Number: bounds, both included. */
  readonly min: number | null;
  readonly max: number | null;
  /** Enum: what it may be, in the order of the declaration. */
  readonly values: readonly string[] | null;
  /** Relation: the model it points at. The API has `company` to read and `companyId` to write. */
  readonly target: string | null;
  /** `personal`: it tells something about a person. The log keeps it sealed, and can forget it without being rewritten. */
  readonly pii: 'personal' | null;
}

/** A model as the rest of the system sees it. */
export interface ModelDefinition {
  /** `Contact`; its events are `Contact.created`, its streams `Contact-<id>`. */
  readonly name: string;
  /** `contact`: the field that reads one. */
  readonly singular: string;
  /** `contacts`: the field that lists them. */
  readonly plural: string;
  /** `model_contact`: the table of its read rows. */
  readonly table: string;
  readonly description: string | null;
  readonly fields: readonly FieldDefinition[];
}

/** A whole schema in its intermediate form, which the API, the tables, the validation and the metadata are made from. */
export interface SchemaDefinition {
  /** The version of this form; a reader refuses a newer one. */
  readonly version: 1;
  readonly models: readonly ModelDefinition[];
}

/** The longest text when the author sets no `max`: a page of prose; longer bodies say so with their own limit. */
export const DEFAULT_MAX_LENGTH = 10_000;

/** The column that holds a field's value: `companyName` → `company_name`, relation `company` → `company_id`. */
export function columnOf(field: FieldDefinition): string {
  return snakeCase(inputName(field));
}

/** The name under which a field is written: relations take the other record's id. */
export function inputName(field: FieldDefinition): string {
  return field.type === 'relation' ? `${field.name}Id` : field.name;
}

/** `companyName` → `company_name`. */
export function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter, at: number) => `${at > 0 ? '_' : ''}${letter.toLowerCase()}`);
}

/** The model of that name. @throws RangeError: callers only ask for models that the schema's own check has seen */
export function modelNamed(schema: SchemaDefinition, name: string): ModelDefinition {
  const model = schema.models.find((candidate) => candidate.name === name);
  if (!model) throw new RangeError(`the schema has no model ${name}`);
  return model;
}
