import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { CodedError } from '@atomo-cc/kernel';
import type { SchemaDefinition } from '@atomo-cc/schema';
import { schemaFrom } from '@atomo-cc/schema/load';

/**
 * Loads `schema.ts` of a service's folder, in whichever form it is written.
 * @throws CodedError SCHEMA_INVALID naming the file
 */
export async function loadSchema(folder: string): Promise<SchemaDefinition> {
  const file = resolve(folder, 'schema.ts');
  if (existsSync(file)) return schemaFrom(file);
  throw new CodedError(
    'SCHEMA_INVALID',
    `${folder} has no schema.ts. Set ATOMO_SERVICE to a folder that has one, such as services/crm.`,
  );
}
