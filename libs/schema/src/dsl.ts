import {
  DEFAULT_MAX_LENGTH,
  type Expression,
  type FieldDefinition,
  type FieldRule,
  type FieldType,
  type FieldUi,
  type GeoPoint,
  type JsonValue,
  type ModelUi,
  type OnDelete,
  type Operation,
  type RelationDefinition,
  type Scalar,
} from './model.js';

/** What the author of a schema is told. */
export const SCHEMA_ERRORS = {
  SCHEMA_INVALID:
    'The schema.ts has faults; the message lists all of them with their place and an example of what is right.',
} as const;

/** A field's settings, and the marks that become part of the model. */
export type Attributes = Omit<FieldDefinition, 'name' | 'blocks'> & {
  readonly blocks: readonly (Block | string)[] | null;
  readonly unique: boolean;
  readonly index: boolean;
};

/** Marks a field that every record has a value for. */
export interface IsRequired {
  readonly $required: true;
}
/** Marks a field that a new record need not say. */
export interface HasDefault {
  readonly $default: true;
}

/** A declared field. `Value` is what it holds; fields are optional until `required()`. Every method answers a new field. */
export class Field<Value> {
  declare readonly $value: Value;

  constructor(readonly attributes: Attributes) {}

  /** Every record must have a value. */
  required(message?: string): this & IsRequired {
    return this.with({ required: true, ...this.saying('required', message) }) as this & IsRequired;
  }

  /** What a new record holds when it does not say. */
  default(value: Value): this & HasDefault {
    return this.with({ default: { value: value as JsonValue } }) as this & HasDefault;
  }

  /** No two records have the same value; any number may have none. */
  unique(): this {
    return this.with({ unique: true });
  }

  /** Is often filtered or sorted by. */
  index(): this {
    return this.with({ index: true });
  }

  /** Identifies or describes a person: sealed in the log, erased with them. */
  personal(): this {
    return this.with({ pii: 'personal' });
  }

  /** Personal, and of the sort that harms when it leaks. */
  sensitive(): this {
    return this.with({ pii: 'sensitive' });
  }

  /**
   * The name it had before, or several, the newest first. Its values move over, those of the past too; say it for as long as
   * there are events from then, which is for ever.
   */
  formerly(...names: string[]): this {
    return this.with({ formerly: names });
  }

  /** What the field means, in a sentence; it becomes the documentation of the API. */
  describe(description: string): this {
    return this.with({ description });
  }

  /** How it is shown. Adds to what was said before. */
  ui(ui: FieldUi): this {
    return this.with({ ui: { ...this.attributes.ui, ...ui } });
  }

  protected with(changed: Partial<Attributes>): this {
    return new (this.constructor as new (attributes: Attributes) => this)({ ...this.attributes, ...changed });
  }

  /** The part of the attributes that holds a message of the author's. */
  protected saying(rule: FieldRule, message: string | undefined): Partial<Attributes> {
    return message === undefined ? {} : { messages: { ...this.attributes.messages, [rule]: message } };
  }
}

/** A field of text. */
export class TextField extends Field<string> {
  /** The fewest characters it may have. */
  min(minLength: number, message?: string): this {
    return this.with({ minLength, ...this.saying('minLength', message) });
  }

  /** The most characters it may have; the factory says how many unless set. */
  max(maxLength: number, message?: string): this {
    return this.with({ maxLength, ...this.saying('maxLength', message) });
  }

  /**
   * What it must look like, anywhere in it unless anchored by `^` and `$`. Always read as Unicode. Look-around, references back and
   * word boundaries are refused, so that no text can make the match slow.
   */
  pattern(pattern: RegExp, message?: string): this {
    const { source, flags } = pattern;
    const unicode = [...new Set(`${flags}u`)].toSorted().join('');
    return this.with({ pattern: { source, flags: unicode }, ...this.saying('pattern', message) });
  }

  /** Its words are found by full-text search. */
  searchable(): this {
    return this.with({ searchable: true });
  }
}

/** A field that is calculated with. Bounds are included. */
export class NumberField<Value extends number | string = number> extends Field<Value> {
  /** The least value allowed. */
  min(min: number, message?: string): this {
    return this.with({ min, ...this.saying('min', message) });
  }

  /** The greatest value allowed. */
  max(max: number, message?: string): this {
    return this.with({ max, ...this.saying('max', message) });
  }
}

/** A day or a moment. */
export class TimeField extends Field<string> {
  /** A new record holds the time of its creation unless it says another. */
  defaultNow(): this & HasDefault {
    return this.with({ default: { now: true } }) as this & HasDefault;
  }
}

/** A reference to one other record. */
export class Reference extends Field<string> {
  declare readonly $reference: true;
}

/** An ordered list of blocks. */
export class BlocksField<Value> extends Field<readonly Value[]> {
  /** The most blocks that may stand at its top. */
  max(maxItems: number): this {
    return this.with({ maxItems });
  }

  /** The words in it are found by full-text search. */
  searchable(): this {
    return this.with({ searchable: true });
  }
}

/** A relation without a column: what it shows is read from other tables. */
export class Link<Writable extends boolean = boolean> {
  declare readonly $writable: Writable;

  constructor(readonly attributes: LinkAttributes) {}

  /** What the relation means, in a sentence. */
  describe(description: string): this {
    return new Link({ ...this.attributes, description }) as this;
  }

  /** How it is shown. */
  ui(ui: FieldUi): this {
    return new Link({ ...this.attributes, ui: { ...this.attributes.ui, ...ui } }) as this;
  }
}

/** What a link was declared with; the rest is found out from the other side. */
export type LinkAttributes = Omit<RelationDefinition, 'name' | 'through' | 'input'> & {
  readonly through: string | null;
};

const NOTHING: Omit<Attributes, 'type'> = {
  required: false,
  description: null,
  maxLength: null,
  minLength: null,
  pattern: null,
  min: null,
  max: null,
  precision: null,
  scale: null,
  values: null,
  target: null,
  onDelete: null,
  slug: null,
  blocks: null,
  maxItems: null,
  file: null,
  default: null,
  pii: null,
  formerly: [],
  searchable: false,
  messages: null,
  ui: null,
  unique: false,
  index: false,
};

/** The settings of a field of a type, with nothing said. */
export function attributes(type: FieldType, more: Partial<Attributes> = {}): Attributes {
  return { type, ...NOTHING, ...more };
}

/** The longest rich text unless set: a book's chapter. */
const RICH_TEXT_LENGTH = 100_000;
/** The longest URL that browsers and proxies are sure to carry. */
const URL_LENGTH = 2_048;
/** A slug is read by people and stands in URLs. */
const SLUG_LENGTH = 200;
/** What a 32-bit integer holds, and GraphQL's Int. */
const INTEGER_BOUNDS = { min: -(2 ** 31), max: 2 ** 31 - 1 };

/** Text of any kind. */
export const text = (): TextField => new TextField(attributes('text', { maxLength: DEFAULT_MAX_LENGTH }));
/** Text with formatting, written in Markdown. It is stored as it came: whoever shows it must not let raw HTML through. */
export const richText = (): TextField => new TextField(attributes('richText', { maxLength: RICH_TEXT_LENGTH }));
/** An e-mail address; 320 characters is the longest there is (RFC 3696 erratum 1690 counts 64 + @ + 255). */
export const email = (): TextField => new TextField(attributes('email', { maxLength: 320 }));
/** A web address, http or https. */
export const url = (): TextField => new TextField(attributes('url', { maxLength: URL_LENGTH }));

/**
 * The readable part of a URL: small letters and digits of any script, joined by hyphens. Unique among the records whose `scope`
 * fields are equal, or among all. With `from`, a new record that gives none gets one made of that field; later changes of it change nothing.
 */
export function slug(options: { readonly from: string; readonly scope?: readonly string[] }): TextField & HasDefault;
export function slug(options?: { readonly scope?: readonly string[] }): TextField;
export function slug(options: { readonly from?: string; readonly scope?: readonly string[] } = {}): TextField {
  const made = { from: options.from ?? null, scope: options.scope ?? [] };
  return new TextField(attributes('slug', { maxLength: SLUG_LENGTH, slug: made }));
}

/** A whole number of 32 bits; larger ones are `decimal(18, 0)`. */
export const integer = (): NumberField => new NumberField(attributes('integer', INTEGER_BOUNDS));
/** An exact number with `precision` digits, `scale` of them behind the point; a string in JSON, so that no digit is lost: `'12.50'`. */
export const decimal = (precision: number, scale: number): NumberField<string> =>
  new NumberField<string>(attributes('decimal', { precision, scale }));
/** A number (IEEE 754 double precision), for measurements; money is `decimal`. */
export const number = (): NumberField => new NumberField(attributes('number'));
/** True or false. */
export const boolean = (): Field<boolean> => new Field(attributes('boolean'));
/** A day of the calendar without a time, `2026-11-21`. */
export const date = (): TimeField => new TimeField(attributes('date'));
/** A moment, written with any offset and stored in UTC: `2026-11-21T07:25:18.123Z`. */
export const datetime = (): TimeField => new TimeField(attributes('datetime'));
/** Data of any shape. */
export const json = (): Field<JsonValue> => new Field(attributes('json'));
/** One of the given words. */
export const enumeration = <const Values extends readonly [string, ...string[]]>(
  ...values: Values
): Field<Values[number]> => new Field(attributes('enum', { values }));
/** An uploaded file; the value is the id of the upload. `accept` lists media types such as `image/*`. */
export const file = (
  options: { readonly accept?: readonly string[]; readonly maxBytes?: number } = {},
): Field<string> =>
  new Field(attributes('file', { file: { accept: options.accept ?? null, maxBytes: options.maxBytes ?? null } }));
/** A place on the earth. */
export const geoPoint = (): Field<GeoPoint> => new Field(attributes('geoPoint'));
/**
 * A record of another model (or of the same one). The API reads it as `company` and writes it as `companyId`. A record that others
 * belong to cannot be deleted unless `onDelete` says what becomes of them.
 */
export const belongsTo = (target: string, options: { readonly onDelete?: OnDelete } = {}): Reference =>
  new Reference(attributes('relation', { target, onDelete: options.onDelete ?? 'restrict' }));

const linkTo = (kind: LinkAttributes['kind'], target: string, more: Partial<LinkAttributes>): LinkAttributes => ({
  kind,
  target,
  description: null,
  via: null,
  through: null,
  inverseOf: null,
  onDelete: null,
  ui: null,
  ...more,
});

/** The records of another model that belong to this one by their relation `via`; it need not be said where there is only one. */
export const hasMany = (target: string, options: { readonly via?: string } = {}): Link<false> =>
  new Link<false>(linkTo('hasMany', target, { via: options.via ?? null }));

/**
 * Any number of records of another model, each of which may be linked to any number of this one. The API reads them as `tags` and
 * writes the list of ids as `tagIds`. `through` names a model that holds each link with more about it, and is then written instead;
 * `inverseOf` shows the links that the other model's relation of that name owns. Deleting a record drops its links; with `onDelete:
 * 'restrict'` a record that is linked to cannot be deleted.
 */
export function manyToMany(
  target: string,
  options: { readonly through: string } | { readonly inverseOf: string },
): Link<false>;
export function manyToMany(target: string, options?: { readonly onDelete?: 'cascade' | 'restrict' }): Link<true>;
export function manyToMany(
  target: string,
  options: {
    readonly through?: string;
    readonly inverseOf?: string;
    readonly onDelete?: 'cascade' | 'restrict';
  } = {},
): Link {
  const { through = null, inverseOf = null } = options;
  const onDelete = through === null && inverseOf === null ? (options.onDelete ?? 'cascade') : null;
  return new Link(linkTo('manyToMany', target, { through, inverseOf, onDelete }));
}

/** The fields of a model or a block by their names. */
export type Fields = Readonly<Record<string, Field<unknown> | Link>>;
/** The fields of a block: without relations. */
export type BlockFields = Readonly<Record<string, Field<unknown>>>;

/** A type of block; `blocks` says where it may stand. */
export class Block<Name extends string = string, F extends BlockFields = BlockFields> {
  constructor(
    readonly name: Name,
    readonly declaration: BlockDeclaration<F>,
  ) {}
}

/** What a block consists of. */
export interface BlockDeclaration<F extends BlockFields = BlockFields> {
  readonly description?: string;
  readonly fields: F;
  readonly ui?: ModelUi;
}

/** Declares a type of block: `block('Paragraph', { fields: { text: text().required() } })`. */
export const block = <const Name extends string, F extends BlockFields>(
  name: Name,
  declaration: BlockDeclaration<F>,
): Block<Name, F> => new Block(name, declaration);

/**
 * An ordered list of blocks of the given types. A type that holds itself is named by its name, `blocks([Paragraph, 'Section'])`,
 * and must be declared with the field that it is first used in.
 */
export const blocks = <const Types extends readonly (Block | string)[]>(
  types: Types,
): BlocksField<BlockOf<Types[number]>> =>
  new BlocksField<BlockOf<Types[number]>>(attributes('blocks', { blocks: types }));

/** A block as a value. */
export type BlockOf<B> =
  B extends Block<infer Name, infer F>
    ? { readonly type: Name } & FieldValues<F>
    : B extends string
      ? { readonly type: B; readonly [field: string]: JsonValue }
      : never;

/** What a condition compares a field with. */
export type ComparedWith<Value, Name extends string = string> =
  Value | { readonly field: Name } | { readonly caller: 'id' | 'role' };

/** What a condition says about one field; all of it must hold. Only numbers, days and moments have an order. */
export interface Comparison<Value, Name extends string = string> {
  readonly equals?: ComparedWith<Value, Name> | null;
  readonly not?: ComparedWith<Value, Name> | null;
  readonly in?: readonly Value[];
  readonly notIn?: readonly Value[];
  readonly gt?: ComparedWith<Value, Name>;
  readonly gte?: ComparedWith<Value, Name>;
  readonly lt?: ComparedWith<Value, Name>;
  readonly lte?: ComparedWith<Value, Name>;
  readonly isNull?: boolean;
}

type NamesOf<F> = keyof F & string;
type ValueOf<F> = F extends Field<infer Value> ? Value : never;
type Comparable<F> = { [K in NamesOf<F>]: ValueOf<F[K]> extends Scalar ? K : never }[NamesOf<F>];

/** A condition over a record in the words of the API's filters: `{ amount: { gte: 0 }, or: [ … ] }`. Fields are named as declared. */
export type Where<F> = {
  readonly and?: readonly Where<F>[];
  readonly or?: readonly Where<F>[];
  readonly not?: Where<F>;
} & { readonly [K in Comparable<F>]?: Comparison<ValueOf<F[K]>, NamesOf<F>> };

/** The one who asks, for row rules: `{ owner: { equals: caller.id } }`. */
export const caller = { id: { caller: 'id' }, role: { caller: 'role' } } as const;

/** Something every record must meet, and what to say when it does not. */
export interface CheckDeclaration<F = Fields> {
  readonly where: Where<F>;
  readonly message: string;
}

/** Fields that together tell records apart; with `where`, among the records that meet it. */
export type UniqueDeclaration<F = Fields> =
  | readonly NamesOf<F>[]
  | { readonly fields: readonly NamesOf<F>[]; readonly where?: Where<F>; readonly message?: string };

/** What a role may do: all, nothing, these fields, or these fields of the records that meet `where`. */
export type GrantDeclaration<F = Fields, Names extends string = string> =
  | boolean
  | readonly (Names | 'id' | 'version' | 'createdAt' | 'updatedAt')[]
  | { readonly fields?: readonly (Names | 'id' | 'version' | 'createdAt' | 'updatedAt')[]; readonly where?: Where<F> };

/**
 * Who may do what. By operation and role, where `everyone` stands for all roles that are not named. An operation that is left out is
 * Admin's alone; in one that is stated, Admin may do everything unless named, and others may do nothing unless named.
 */
export type AccessDeclaration<F = Fields, Names extends string = string> = {
  readonly [O in Operation]?: Readonly<Record<string, GrantDeclaration<F, Names>>>;
};

/** Work to be done after an event, when its conditions are met: the name alone, or with conditions that must all hold. */
export type ActionDeclaration<F = Fields> =
  | string
  | {
      readonly action: string;
      readonly changedAny?: readonly NamesOf<F>[];
      readonly fieldEquals?: { readonly [K in Comparable<F>]?: ValueOf<F[K]> };
    };

/** The actions of a model by the event that sets them off. */
export interface ActionsDeclaration<F = Fields> {
  readonly created?: readonly ActionDeclaration<F>[];
  readonly updated?: readonly ActionDeclaration<F>[];
  readonly deleted?: readonly ActionDeclaration<F>[];
}

/** A computed field; more may be said of it: `{ ...template('{firstName} {lastName}'), description: 'In full.' }`. */
export interface Computation extends Expression {
  readonly description?: string;
  readonly ui?: FieldUi;
}

/** Text made of fields: `template('{firstName} {lastName}')`. Missing values are empty; what is left is trimmed. */
export function template(pattern: string): Computation {
  const parts = pattern
    .split(/(\{[^{}]*\})/)
    .filter((part) => part !== '')
    .map((part) => (part.startsWith('{') && part.endsWith('}') ? { field: part.slice(1, -1) } : { value: part }));
  return { op: 'text', parts };
}

const calculation =
  (op: Expression['op']) =>
  (...parts: readonly [string | number, string | number, ...(string | number)[]]): Computation => ({
    op,
    parts: parts.map((part) => (typeof part === 'number' ? { value: String(part) } : { field: part })),
  });

/** The exact sum of integer and decimal fields, and of fixed numbers: `sum('net', 'tax')`. */
export const sum = calculation('sum');
/** The first less the others. */
export const difference = calculation('difference');
/** The exact product: `product('price', 'quantity')`. */
export const product = calculation('product');

/** A model as its author declares it. */
export interface ModelDeclaration<
  F extends Fields = Fields,
  C extends Readonly<Record<string, Computation>> = Readonly<Record<string, Computation>>,
  Names extends string = string,
> {
  readonly description?: string;
  /** The name of the list in the API, where adding an s is wrong: `people`. */
  readonly plural?: string;
  readonly fields: F;
  /** Fields that follow from others and are never written. */
  readonly computed?: C;
  /** Besides what single fields say with `unique()`. */
  readonly unique?: readonly UniqueDeclaration<F>[];
  /** Lists of fields that records are often found or sorted by. */
  readonly index?: readonly (readonly NamesOf<F>[])[];
  readonly checks?: readonly CheckDeclaration<F>[];
  /** Whether deleted records are kept for being restored; true unless said otherwise. */
  readonly softDelete?: boolean;
  readonly access?: AccessDeclaration<F, Names>;
  readonly on?: ActionsDeclaration<F>;
  readonly ui?: ModelUi;
}

/** Declares a model outside `defineSchema`, so that its types can be inferred: `InferRecord<typeof Contact>`. */
export const model = <
  F extends Fields,
  // oxlint-disable-next-line typescript/no-empty-object-type -- no computed field: no name
  const C extends Readonly<Record<string, Computation>> = {},
>(
  declaration: ModelDeclaration<F, C, NoInfer<NamesOf<F> | NamesOf<C>>>,
): ModelDeclaration<F, C, NamesOf<F> | NamesOf<C>> => declaration;

/** The name under which the ids of a relation's records are written: `tags` → `tagIds`. `idsName` is its run-time twin. */
export type IdsName<Name extends string> = Name extends `${infer Stem}ies`
  ? `${Stem}yIds`
  : Name extends `${infer Stem}xes`
    ? `${Stem}xIds`
    : Name extends `${infer Stem}ches`
      ? `${Stem}chIds`
      : Name extends `${infer Stem}shes`
        ? `${Stem}shIds`
        : Name extends `${infer Stem}sses`
          ? `${Stem}ssIds`
          : Name extends `${string}ss`
            ? `${Name}Ids`
            : Name extends `${infer Stem}s`
              ? `${Stem}Ids`
              : `${Name}Ids`;

/** `tags` → `tagIds`, `categories` → `categoryIds`. */
export function idsName(name: string): string {
  const stem = name.replace(/ies$/, 'y');
  if (stem !== name) return `${stem}Ids`;
  return `${name.replace(/(x|ch|sh|ss)es$/, '$1').replace(/^(.*[^s])s$/, '$1')}Ids`;
}

type Flat<T> = { [K in keyof T]: T[K] };
type InputKey<K extends string, F> = F extends Reference ? `${K}Id` : K;
/** What a field holds when it is read or stored. */
type Stored<F> = F extends IsRequired ? ValueOf<F> : ValueOf<F> | null;
type FieldValues<F> = Flat<
  { readonly [K in NamesOf<F> as F[K] extends IsRequired ? InputKey<K, F[K]> : never]: ValueOf<F[K]> } & {
    readonly [K in NamesOf<F> as F[K] extends IsRequired ? never : InputKey<K, F[K]>]?: ValueOf<F[K]> | null;
  }
>;

/** A record of a model as it is read: its own fields, what is stored, and what is computed. Relations are read by the API. */
export type InferRecord<M> =
  M extends ModelDeclaration<infer F, infer C>
    ? Flat<
        { readonly id: string; readonly version: number; readonly createdAt: string; readonly updatedAt: string } & {
          readonly [K in NamesOf<F> as F[K] extends Link ? never : InputKey<K, F[K]>]: Stored<F[K]>;
        } & { readonly [K in NamesOf<C>]: string | null }
      >
    : never;

type IsDemanded<F> = F extends IsRequired ? (F extends HasDefault ? false : true) : false;

/** What a new record is made from. */
export type InferCreateInput<M> =
  M extends ModelDeclaration<infer F, infer _C>
    ? Flat<
        {
          readonly [K in NamesOf<F> as IsDemanded<F[K]> extends true ? InputKey<K, F[K]> : never]: ValueOf<F[K]>;
        } & {
          readonly [
            K in NamesOf<F> as F[K] extends Link ? never : IsDemanded<F[K]> extends true ? never : InputKey<K, F[K]>
          ]?: Stored<F[K]>;
        } & { readonly [K in NamesOf<F> as F[K] extends Link<true> ? IdsName<K> : never]?: readonly string[] }
      >
    : never;

/** What a record is changed by: any part of it; null empties a field that is not required. */
export type InferUpdateInput<M> =
  M extends ModelDeclaration<infer F, infer _C>
    ? Flat<
        { readonly [K in NamesOf<F> as F[K] extends Link ? never : InputKey<K, F[K]>]?: Stored<F[K]> } & {
          readonly [K in NamesOf<F> as F[K] extends Link<true> ? IdsName<K> : never]?: readonly string[];
        }
      >
    : never;
