import { CodedError } from '@atomo-cc/kernel';

/**
 * The intermediate form: plain JSON data from which tables, API, validation, metadata and Admin UI are made, the same
 * whatever form the author wrote. Nothing in it is a function, so it may be stored, sent and compared.
 */

/** What JSON can say. */
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };
/** A value as it is stored in an event and a row. Decimals are strings, moments ISO 8601 in UTC with milliseconds. */
export type FieldValue = JsonValue;
/** The values of a record by the name under which they are written (`companyId` for relation `company`). */
export type RecordValues = Readonly<Record<string, FieldValue>>;
/** A place on the earth in degrees (WGS 84). */
export interface GeoPoint {
  readonly lat: number;
  readonly lng: number;
}

/** The kinds of field that a model may have. */
export type FieldType =
  | 'text'
  | 'richText'
  | 'email'
  | 'url'
  | 'slug'
  | 'integer'
  | 'decimal'
  | 'number'
  | 'boolean'
  | 'date'
  | 'datetime'
  | 'json'
  | 'enum'
  | 'file'
  | 'geoPoint'
  | 'blocks'
  | 'relation';

/** What happens to a record when the one it belongs to is deleted. */
export type OnDelete = 'restrict' | 'cascade' | 'setNull';

/**
 * What kind of knowledge about a person a field holds: `personal` identifies or describes someone, `sensitive` is of the sort
 * that harms when it leaks (health, pay, beliefs). Both are sealed in the log; whoever asks "is it about a person" compares with null.
 */
export type Pii = 'personal' | 'sensitive';

/** The rules of a field that may have a message of their own. */
export type FieldRule = 'required' | 'minLength' | 'maxLength' | 'min' | 'max' | 'pattern';

/** How a field is shown; plain words for whoever draws a form, without effect on what is stored. */
export interface FieldUi {
  readonly label?: string;
  /** The kind of input to draw, where the type alone does not say: `textarea`, `radio`, `color`. */
  readonly widget?: string;
  readonly placeholder?: string;
  readonly help?: string;
  /** Fields of one group stand together under its name. */
  readonly group?: string;
  readonly hidden?: boolean;
  readonly readOnly?: boolean;
}

/** How a model is shown. */
export interface ModelUi {
  readonly label?: string;
  readonly group?: string;
  readonly icon?: string;
  /** The field that stands for the record: in a heading, in a link from elsewhere. */
  readonly title?: string;
  /** The columns of its list, in their order. */
  readonly list?: readonly string[];
}

/** A value that conditions compare. */
export type Scalar = string | number | boolean;
/** What a field is compared with: a fixed value, another field of the same record, or something about who asks. */
export type Operand = { readonly value: Scalar } | { readonly field: string } | { readonly caller: 'id' | 'role' };
/** Which comparisons there are besides lists and `isNull`. */
export type ComparisonOperator = 'equals' | 'notEquals' | 'gt' | 'gte' | 'lt' | 'lte';

/**
 * A condition over one record, as data: for checks, partial uniqueness, row rules and actions. Fields are named as they are
 * declared (`company`, also where its id is meant). `holds` and `passes` decide it, `conditionSql` makes SQL of it.
 */
export type Condition =
  | { readonly op: 'and' | 'or'; readonly of: readonly Condition[] }
  | { readonly op: 'not'; readonly of: Condition }
  | { readonly op: ComparisonOperator; readonly field: string; readonly operand: Operand }
  | { readonly op: 'in' | 'notIn'; readonly field: string; readonly values: readonly Scalar[] }
  | { readonly op: 'isNull'; readonly field: string; readonly isNull: boolean };

/** A regular expression in JavaScript's Unicode mode (its flags have the u), without what `compilePattern` refuses. */
export interface PatternDefinition {
  readonly source: string;
  readonly flags: string;
}

/** What a field holds when a new record does not say: a value, or the moment (or day, in UTC) of its creation. */
export type FieldDefault = { readonly value: JsonValue } | { readonly now: true };

/** A field that is written and stored. Settings that its type does not have are null. */
export interface FieldDefinition {
  readonly name: string;
  readonly type: FieldType;
  readonly required: boolean;
  readonly description: string | null;
  /** Text of all kinds: the most characters (UTF-16 units, as JavaScript counts) it may have. */
  readonly maxLength: number | null;
  /** Text of all kinds: the fewest. */
  readonly minLength: number | null;
  readonly pattern: PatternDefinition | null;
  /** Integer, decimal and number: bounds, both included. */
  readonly min: number | null;
  readonly max: number | null;
  /** Decimal: all digits, and those behind the point. It is written, stored and read as a string with exactly `scale` of them. */
  readonly precision: number | null;
  readonly scale: number | null;
  /** Enum: what it may be, in the order of the declaration. */
  readonly values: readonly string[] | null;
  /** Relation: the model it points at. The API has `company` to read and `companyId` to write. */
  readonly target: string | null;
  /** Relation: what becomes of this record when that one is deleted. */
  readonly onDelete: OnDelete | null;
  /** Slug: the field it is made from where it is not given, and the fields within whose values it is unique. */
  readonly slug: { readonly from: string | null; readonly scope: readonly string[] } | null;
  /** Blocks: the types allowed at its top, by the names in the model's `blocks`. */
  readonly blocks: readonly string[] | null;
  /** Blocks: the most that may stand at its top. */
  readonly maxItems: number | null;
  /** File: the media types allowed (`image/*`) and the most bytes; null stands for any. The value is the id of the upload. */
  readonly file: { readonly accept: readonly string[] | null; readonly maxBytes: number | null } | null;
  readonly default: FieldDefault | null;
  readonly pii: Pii | null;
  /** The names it had before: its column is renamed, and values that events have under them are its own. */
  readonly formerly: readonly string[];
  /** Its text is looked through by the condition `search` of its model's records. */
  readonly searchable: boolean;
  /** What to say instead of the usual sentence when a rule is broken. */
  readonly messages: Readonly<Partial<Record<FieldRule, string>>> | null;
  readonly ui: FieldUi | null;
}

/** A relation without a column in this model's table. */
export interface RelationDefinition {
  readonly name: string;
  readonly kind: 'hasMany' | 'manyToMany';
  readonly target: string;
  readonly description: string | null;
  /** hasMany: the relation of `target` that points back here. */
  readonly via: string | null;
  /** manyToMany by a model of its own: that model, its relation to this one, and its relation to `target`. Written through that model. */
  readonly through: { readonly model: string; readonly from: string; readonly to: string } | null;
  /** manyToMany seen from its other side: the relation of `target` that owns the links. Read only. */
  readonly inverseOf: string | null;
  /** manyToMany that owns its links: the name under which the list of ids is written (`tagIds`); null where it is read only. */
  readonly input: string | null;
  /** manyToMany that owns its links: `cascade` drops the link when either end is deleted, `restrict` refuses to delete the target. */
  readonly onDelete: 'cascade' | 'restrict' | null;
  readonly ui: FieldUi | null;
}

/** A part of an expression: a field of the record, or fixed text (in a sum: a number written as a decimal). */
export type ExpressionPart = { readonly field: string } | { readonly value: string };
/** How a value is made from others of the same record; `computeValue` makes it, `expressionSql` makes one SQL expression of it. */
export interface Expression {
  /** `text` strings its parts together; the others calculate exactly, as decimals. */
  readonly op: 'text' | 'sum' | 'difference' | 'product';
  readonly parts: readonly ExpressionPart[];
}

/** A field that is never written: it follows from others. Read, compared, ordered and grouped by, it is a field of its type. */
export interface ComputedDefinition {
  readonly name: string;
  readonly type: 'text' | 'decimal';
  readonly expression: Expression;
  /** Decimal: digits behind the point. */
  readonly scale: number | null;
  readonly description: string | null;
  /** The strictest of the fields it is made from. */
  readonly pii: Pii | null;
  readonly ui: FieldUi | null;
}

/** A type of block. As a value it is an object with `type`, its name, beside its fields. */
export interface BlockDefinition {
  readonly name: string;
  readonly description: string | null;
  readonly fields: readonly FieldDefinition[];
  readonly ui: ModelUi | null;
}

/** Fields that together tell records apart; among those that meet `where`, if there is one. Records without a value are all different. */
export interface UniqueDefinition {
  readonly fields: readonly string[];
  readonly where: Condition | null;
  readonly message: string | null;
}

/** What every record of the model must meet. An unknown (a field without a value) passes, as in SQL. */
export interface CheckDefinition {
  readonly condition: Condition;
  readonly message: string;
  /** The field that a fault is shown at: the first that the condition names. */
  readonly field: string;
}

/** What rules may be about. */
export type Operation = 'read' | 'create' | 'update' | 'delete';
/** What a role may do in an operation: on which fields (null: all) of which records (null: all). */
export interface Grant {
  readonly fields: readonly string[] | null;
  readonly where: Condition | null;
}
/** Who may do what, by operation and role. Every role that may is listed; a role that is not listed may not. */
export type AccessDefinition = Readonly<Record<Operation, Readonly<Record<string, Grant>>>>;

/** A named piece of work that is to be done when a record was created, updated or deleted. */
export interface ActionBinding {
  readonly event: 'created' | 'updated' | 'deleted';
  readonly action: string;
  /** Updated only: at least one of these changed. */
  readonly changedAny: readonly string[] | null;
  /** The record, as it is afterwards, has these values. */
  readonly fieldEquals: Readonly<Record<string, FieldValue>> | null;
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
  /** What is written and stored, a column each. */
  readonly fields: readonly FieldDefinition[];
  /** What is read from other tables. */
  readonly relations: readonly RelationDefinition[];
  /** What follows from the fields. */
  readonly computed: readonly ComputedDefinition[];
  /** All types of block that its fields may hold, at any depth. Types of one name are the same in all models. */
  readonly blocks: readonly BlockDefinition[];
  readonly uniques: readonly UniqueDefinition[];
  /** Fields to be found by, in their order, besides relations and what is unique. */
  readonly indexes: readonly (readonly string[])[];
  readonly checks: readonly CheckDefinition[];
  /** Deleted records are kept and can be restored, until they are purged. */
  readonly softDelete: boolean;
  readonly access: AccessDefinition;
  readonly actions: readonly ActionBinding[];
  readonly ui: ModelUi | null;
}

/** A whole schema in its intermediate form. */
export interface SchemaDefinition {
  /** The version of this form; a reader refuses another one. */
  readonly version: typeof SCHEMA_VERSION;
  /** Admin first; who has none of these may do nothing. */
  readonly roles: readonly string[];
  readonly models: readonly ModelDefinition[];
}

/** The version of the intermediate form that this code makes and reads. */
export const SCHEMA_VERSION = 1;

/** The role that may do whatever the rules of a schema leave out. */
export const ADMIN = 'Admin';

/** The longest text when the author sets no `max`: a page of prose; longer bodies say so with their own limit. */
export const DEFAULT_MAX_LENGTH = 10_000;

/** Fields that every record has. */
export const OWN_FIELDS: readonly string[] = ['id', 'version', 'createdAt', 'updatedAt'];

/** The column that holds a field's value: `companyName` → `company_name`, relation `company` → `company_id`. */
export function columnOf(field: Pick<FieldDefinition, 'name' | 'type'>): string {
  return snakeCase(inputName(field));
}

/** The name under which a field is written: relations take the other record's id. */
export function inputName(field: Pick<FieldDefinition, 'name' | 'type'>): string {
  return field.type === 'relation' ? `${field.name}Id` : field.name;
}

/** The name under which the API has a field's blocks by their types: `bodyBlocks`. Null where it has no blocks, or that name is another's. */
export function blocksViewOf(model: ModelDefinition, field: FieldDefinition): string | null {
  const name = `${field.name}Blocks`;
  const others = [...model.fields, ...model.relations, ...model.computed];
  return field.type === 'blocks' && !others.some((other) => other.name === name) ? name : null;
}

/** For each model, the names that its fields had before with those of today, as events have them (`inputName`). */
export function formerNames(schema: SchemaDefinition): Map<string, Map<string, string>> {
  return new Map(
    schema.models.map(({ name: model, fields }) => [
      model,
      new Map(
        fields.flatMap((field) => field.formerly.map((name) => [inputName({ ...field, name }), inputName(field)])),
      ),
    ]),
  );
}

/** Whether a new record must say a value for the field: nothing else provides one. */
export function isDemanded(field: FieldDefinition): boolean {
  return field.required && field.default === null && !field.slug?.from;
}

/** The table of the links of a manyToMany relation that owns them: `link_post_tags`, with a column for either end. */
export function linkTableOf(model: ModelDefinition, relation: RelationDefinition): string {
  return `link_${snakeCase(model.name)}_${snakeCase(relation.name)}`;
}

/** A manyToMany relation that owns its links, which are written with the record that declares it. */
export interface LinkRelation extends RelationDefinition {
  readonly input: string;
}

/** The relations of a model whose links are written with its records. */
export function linksOf(model: ModelDefinition): readonly LinkRelation[] {
  return model.relations.filter(
    (relation): relation is LinkRelation => relation.kind === 'manyToMany' && relation.input !== null,
  );
}

/** The column in which a record's history keeps the ids that it was linked to: `tag_ids`. */
export function linkColumnOf({ input }: LinkRelation): string {
  return snakeCase(input);
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

/** The field as it was declared. @throws RangeError: as `modelNamed` */
export function fieldNamed(
  owner: { readonly name: string; readonly fields: readonly FieldDefinition[] },
  name: string,
) {
  const field = owner.fields.find((candidate) => candidate.name === name);
  if (!field) throw new RangeError(`${owner.name} has no field ${name}`);
  return field;
}

/**
 * Reads a stored or received schema. It is trusted to have been made by `defineSchema`; only its version is looked at.
 * @throws CodedError SCHEMA_INVALID when it is of another version, or none at all
 */
export function readSchema(data: unknown): SchemaDefinition {
  const version = (data as { version?: unknown } | null | undefined)?.version;
  if (version === SCHEMA_VERSION && Array.isArray((data as SchemaDefinition).models)) return data as SchemaDefinition;
  throw new CodedError(
    'SCHEMA_INVALID',
    version === undefined
      ? 'this is no schema in its intermediate form, as defineSchema({ models: { … } }) makes it'
      : `this schema is of version ${JSON.stringify(version)}; this code reads version ${SCHEMA_VERSION}. Run the same version of Atomo everywhere`,
  );
}
