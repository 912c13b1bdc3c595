import type { EventCodec } from '@atomo-cc/event-store';
import { ADMIN, defineSchema, text } from '@atomo-cc/schema';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import type { Accounts, ApiTokens, Secrets, Sessions } from '@atomo-cc/access';
import { sessionsApi, tokensApi } from '../auth/index.js';
import { auditApi, eventsApi } from '../events/index.js';
import { syncJobsApi, type Imports, type ProgressFeed } from '../historical-sync/index.js';
import { memoryApi } from '../memory/index.js';
import { projectionsApi } from '../projections/index.js';
import { secretsApi } from '../secrets/index.js';
import { planApi, tenantsApi } from '../tenants/index.js';
import { usersApi } from '../users/index.js';
import { RoleSchemas } from './role-schemas.js';

/** None of the parts is asked for anything here. */
const nothing = {} as unknown;
const database = nothing as AppDatabase;
const parts = [
  eventsApi(database, nothing as EventCodec),
  auditApi(database),
  projectionsApi(database),
  syncJobsApi(nothing as Imports, nothing as ProgressFeed),
  memoryApi(nothing as Parameters<typeof memoryApi>[0]),
  sessionsApi(nothing as Sessions),
  tokensApi(nothing as ApiTokens, database, []),
  secretsApi(nothing as Secrets, database, () => undefined),
  usersApi(nothing as Accounts, () => undefined),
  planApi(database),
  tenantsApi(database, () => undefined),
];
const schema = new RoleSchemas(parts, [ADMIN]).of(ADMIN);
const named = Object.keys(schema.getTypeMap()).filter((name) => !name.startsWith('__'));
const modelOf = (name: string, plural: string) =>
  defineSchema({ models: { [name]: { plural, fields: { x: text() } } } });

test.each(named)('no model may be called %s, a type of the API', (name) => {
  expect(() => modelOf(name, 'others')).toThrow(`models.${name}: `);
});

test.each(Object.keys(schema.getQueryType()!.getFields()))('no list of a model may be called %s', (field) => {
  expect(() => modelOf('Thing', field)).toThrow(/belongs to the platform/);
});
