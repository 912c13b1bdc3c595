import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { CodedError, isCodedError } from '@atomo-cc/kernel';
import type { SchemaDefinition } from '@atomo-cc/schema';

/**
 * Loads `schema.ts` of a service's folder; Node strips the types itself.
 * @throws CodedError SCHEMA_INVALID naming the file
 */
export async function loadSchema(folder: string): Promise<SchemaDefinition> {
  const file = resolve(folder, 'schema.ts');
  if (!existsSync(file)) {
    throw new CodedError(
      'SCHEMA_INVALID',
      `${folder} has no schema.ts. Set ATOMO_SERVICE to a folder that has one, such as services/crm.`,
    );
  }
  let loaded: { default?: SchemaDefinition };
  try {
    loaded = (await import(pathToFileURL(file).href)) as typeof loaded;
  } catch (error) {
    const reason = isCodedError(error) || error instanceof Error ? error.message : String(error);
    throw new CodedError('SCHEMA_INVALID', `${file}: ${reason}`, undefined, { cause: error });
  }
  if (loaded.default?.version !== 1) {
    throw new CodedError('SCHEMA_INVALID', `${file} has no default export made by defineSchema({ models: { … } }).`);
  }
  return loaded.default;
}
