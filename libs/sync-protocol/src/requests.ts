import { getMetadataStorage } from 'class-validator';
import { CONTENT_LIMIT } from './content.js';
import { HASH } from './hashes.js';
import { PART_LIMIT_BYTES } from './limits.js';
import { PATH } from './paths.js';
import { type Fields, type JsonSchema, type ObjectShape, object, optional, partsOf, type Shape } from './shape.js';

type Rule = (argument: unknown, second: unknown) => JsonSchema;

/** What each rule of class-validator, and each of `payload.ts`, says as JSON Schema. */
const RULES: Readonly<Record<string, Rule>> = {
  isUuid: () => ({ type: 'string', format: 'uuid' }),
  isInt: () => ({ type: 'integer' }),
  min: (minimum) => ({ minimum }),
  max: (maximum) => ({ maximum }),
  isBoolean: () => ({ type: 'boolean' }),
  isObject: () => ({ type: 'object' }),
  isArray: () => ({ type: 'array' }),
  arrayMaxSize: (maxItems) => ({ maxItems }),
  arrayNotEmpty: () => ({ minItems: 1 }),
  arrayUnique: () => ({ uniqueItems: true }),
  isIn: (values) => ({ enum: values }),
  isLength: (minLength, maxLength) => ({ type: 'string', minLength, maxLength }),
  maxLength: (maxLength) => ({ type: 'string', maxLength }),
  matches: (pattern) => ({ type: 'string', pattern: (pattern as RegExp).source }),
  isIso8601: () => ({ type: 'string', format: 'date-time' }),
  isBase64: () => ({ type: 'string', contentEncoding: 'base64' }),
  isSyncPath: () => PATH.schema,
  isContentHash: () => HASH.schema,
  isContentHashes: () => ({ type: 'array', items: HASH.schema }),
  isIntText: () => ({ type: 'integer', minimum: 0 }),
  isPartBytes: () => ({ type: 'string', format: 'binary', maxLength: PART_LIMIT_BYTES }),
  isContent: () => ({ type: 'string', maxLength: CONTENT_LIMIT }),
  isStorableText: () => ({ type: 'string' }),
};

/** The shape of a request: its fields are those of a class with rules. */
export type RequestShape = ObjectShape<Fields>;

/**
 * The shape of a body or an event's payload that `parsePayload` reads as `of`, from the same rules.
 * @param inner the shapes of fields, or of a list's items, of which the class says only that they are objects or a list
 * @throws Error for a rule that has no JSON Schema yet
 */
export function requestShape(of: new () => object, inner: Fields = {}): RequestShape {
  return shapeOf(of, inner, (field) => ({ ...field, schema: { anyOf: [field.schema, { type: 'null' }] } }));
}

/** The shape of a query string that is read as `of`: what is left out is not there. */
export function queryShape(of: new () => object): RequestShape {
  return shapeOf(of, {}, (field) => field);
}

function shapeOf(of: new () => object, inner: Fields, leftOut: (field: Shape<unknown>) => Shape<unknown>) {
  const found = new Map<string, { schema: JsonSchema; isOptional: boolean }>();
  for (const rule of getMetadataStorage().getTargetValidationMetadatas(of, '', false, false)) {
    const field = found.get(rule.propertyName) ?? { schema: {}, isOptional: false };
    if (rule.name === 'isOptional') field.isOptional = true;
    else field.schema = merged(field.schema, schemaOf(of.name, rule), rule.each);
    found.set(rule.propertyName, field);
  }
  const fields = [...found].map(([name, { schema, isOptional }]): [string, Shape<unknown>] => {
    const within = inner[name];
    const more = within && (schema['type'] === 'array' ? { items: within.schema } : within.schema);
    const parts = partsOf([PATH, HASH, ...(within ? [within] : [])]);
    const field = { schema: { ...schema, ...more }, parts };
    return [name, isOptional ? optional(leftOut(field)) : field];
  });
  return object(of.name, Object.fromEntries(fields));
}

function schemaOf(
  shape: string,
  { name = '', propertyName, constraints }: { name?: string; propertyName: string; constraints?: unknown[] },
): JsonSchema {
  const rule = RULES[name];
  if (!rule) throw new Error(`${shape}.${propertyName}: the rule ${name} has no JSON Schema in requests.ts`);
  return rule(constraints?.[0], constraints?.[1]);
}

function merged(schema: JsonSchema, more: JsonSchema, each: boolean): JsonSchema {
  if (each) return { ...schema, items: { ...(schema['items'] as JsonSchema | undefined), ...more } };
  return { ...schema, ...more };
}
