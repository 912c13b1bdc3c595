/** A schema in the dialect of JSON Schema 2020-12, which OpenAPI 3.1 and AsyncAPI 3 share. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** Where both documents keep the schemas that have a name. */
const COMPONENTS = '#/components/schemas/';

/** What goes over the wire, written once: `Of` gives its type, `schema` describes it to those who do not read TypeScript. */
export interface Shape<Value> {
  /** As it stands where the shape is used: of a named one, a reference. */
  readonly schema: JsonSchema;
  /** The schemas of all named shapes in it, by name. */
  readonly parts: ReadonlyMap<string, JsonSchema>;
  /** Never set: it carries the type. */
  readonly value?: Value;
}

/** The type of what has the shape. */
export type Of<Some> = Some extends Shape<infer Value> ? Value : never;

/** A field that may be left out. */
export interface OptionalShape<Value> extends Shape<Value> {
  readonly isOptional: true;
}

/** The fields of an object. */
export type Fields = Readonly<Record<string, Shape<unknown>>>;

type Flat<Value> = { [Key in keyof Value]: Value[Key] };
type ObjectOf<Some extends Fields> = Flat<
  {
    readonly [Key in keyof Some as Some[Key] extends { isOptional: true } ? never : Key]: Of<Some[Key]>;
  } & {
    readonly [Key in keyof Some as Some[Key] extends { isOptional: true } ? Key : never]?: Of<Some[Key]>;
  }
>;

/** An object with a name; others may take over its fields. */
export interface ObjectShape<Some extends Fields> extends Shape<ObjectOf<Some>> {
  readonly name: string;
  readonly fields: Some;
}

const NOTHING: ReadonlyMap<string, JsonSchema> = new Map();

/** A shape of a schema that the functions below do not make. */
export function shape<Value>(schema: JsonSchema, about?: string): Shape<Value> {
  return { schema: { ...schema, ...(about !== undefined && { description: about }) }, parts: NOTHING };
}

/** A text. */
export const text = (about?: string) => shape<string>({ type: 'string' }, about);
/** A whole number from 0 on. */
export const whole = (about?: string) => shape<number>({ type: 'integer', minimum: 0 }, about);
/** True or false. */
export const flag = (about?: string) => shape<boolean>({ type: 'boolean' }, about);
/** A UUID in lower case. */
export const uuid = (about?: string) => shape<string>({ type: 'string', format: 'uuid' }, about);
/** A moment in ISO 8601, in UTC with milliseconds. */
export const instant = (about?: string) => shape<string>({ type: 'string', format: 'date-time' }, about);
/** Bytes in base64. */
export const base64 = (about?: string) => shape<string>({ type: 'string', contentEncoding: 'base64' }, about);

/** Exactly this. */
export function fixed<const Value extends string | number | boolean>(value: Value): Shape<Value> {
  return shape({ const: value });
}

/** One of these texts. */
export function oneOf<const Value extends string>(values: readonly Value[], about?: string): Shape<Value> {
  return shape({ type: 'string', enum: [...values] }, about);
}

/** The field may be left out. */
export function optional<Value>(of: Shape<Value>): OptionalShape<Value> {
  return { schema: of.schema, parts: of.parts, isOptional: true };
}

/** The value may be null. */
export function nullable<Value>(of: Shape<Value>): Shape<Value | null> {
  const { type } = of.schema;
  const isPlain = typeof type === 'string' && !('enum' in of.schema);
  const schema = isPlain ? { ...of.schema, type: [type, 'null'] } : { anyOf: [of.schema, { type: 'null' }] };
  return { schema, parts: of.parts };
}

/** A list. */
export function listOf<Value>(of: Shape<Value>, about?: string): Shape<readonly Value[]> {
  return { ...shape({ type: 'array', items: of.schema }, about), parts: of.parts };
}

/** An object whose keys are data. */
export function mapOf<Value>(of: Shape<Value>, about?: string): Shape<Readonly<Record<string, Value>>> {
  return { ...shape({ type: 'object', additionalProperties: of.schema }, about), parts: of.parts };
}

/** One of several. */
export function either<const Some extends readonly Shape<unknown>[]>(...of: Some): Shape<Of<Some[number]>> {
  return { schema: { anyOf: of.map(({ schema }) => schema) }, parts: partsOf(of) };
}

/** A shape under a name of its own. */
export function named<Value>(name: string, of: Shape<Value>): Shape<Value> {
  return { schema: { $ref: COMPONENTS + name }, parts: new Map([...of.parts, [name, of.schema]]) };
}

/** The same shape, with what it means at this place. */
export function about<Value>(of: Shape<Value>, what: string): Shape<Value> {
  return { schema: { ...of.schema, description: what }, parts: of.parts };
}

/** An object with these fields; readers must not mind others, which later versions may add. */
export function object<const Some extends Fields>(name: string, fields: Some): ObjectShape<Some> {
  const schemas = Object.entries(fields).map(([field, { schema }]) => [field, schema] as const);
  const required = Object.keys(fields).filter((field) => !('isOptional' in fields[field]!));
  const schema = {
    type: 'object',
    properties: Object.fromEntries(schemas),
    ...(required.length > 0 && { required }),
  };
  return { ...named(name, { schema, parts: partsOf(Object.values(fields)) }), name, fields };
}

/** The named schemas of several shapes together. */
export function partsOf(shapes: readonly Shape<unknown>[]): ReadonlyMap<string, JsonSchema> {
  return new Map(shapes.flatMap(({ parts }) => [...parts]));
}
