import { randomUUID } from 'node:crypto';
import { asyncApi, EMPTY_HASH, type JsonSchema, openApi } from '@atomo-cc/sync-protocol';

const components = Object.assign(
  {},
  ...[openApi(), asyncApi()].map((document) => (document['components'] as { schemas: object }).schemas),
) as Readonly<Record<string, JsonSchema>>;

/**
 * A value that fits the schema, with its required fields alone. Of a list whose items may be of several kinds, one of each.
 * @param path what stands for a path
 */
export function sampleOf(schema: JsonSchema, path: string): unknown {
  const { $ref, anyOf, enum: values, type } = schema as Schema;
  if ($ref !== undefined) {
    const name = $ref.slice('#/components/schemas/'.length);
    return name === 'SyncPath' ? path : sampleOf(components[name]!, path);
  }
  if ('const' in schema) return schema['const'];
  if (values) return values[0];
  if (anyOf) return sampleOf(anyOf[0]!, path);
  switch (type) {
    case 'object':
      return objectOf(schema as Schema, path);
    case 'array':
      return listOf(schema as Schema, path);
    case 'integer':
      return (schema as Schema).minimum ?? 0;
    case 'boolean':
      return false;
    default:
      return textOf(schema as Schema);
  }
}

interface Schema {
  readonly $ref?: string;
  readonly anyOf?: readonly JsonSchema[];
  readonly enum?: readonly unknown[];
  readonly type?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly minimum?: number;
  readonly format?: string;
  readonly pattern?: string;
}

function objectOf({ properties = {}, required = [] }: Schema, path: string): object {
  return Object.fromEntries(required.map((name) => [name, sampleOf(properties[name]!, path)]));
}

function listOf({ items = {} }: Schema, path: string): unknown[] {
  const named = items['$ref'] as string | undefined;
  const item = (named === undefined ? items : components[named.slice('#/components/schemas/'.length)]!) as Schema;
  return (item.anyOf ?? [items]).map((kind) => sampleOf(kind, path));
}

function textOf({ format, pattern }: Schema): unknown {
  if (format === 'uuid') return randomUUID();
  if (format === 'binary') return Buffer.alloc(0);
  if (format === 'date-time') return '2100-01-01T00:00:00.000Z';
  return pattern?.includes('sha256') ? EMPTY_HASH : 'x';
}
