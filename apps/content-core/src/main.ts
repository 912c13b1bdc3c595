import { resolve } from 'node:path';
import cors from '@fastify/cors';
import multipart from '@fastify/multipart';
import { accessEntities, Accounts, openAccess, Secrets, TenantOrders } from '@atomo-cc/access';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import {
  announceAppended,
  AppendHints,
  EventCodec,
  Fence,
  ProjectionRunner,
  SubjectKeys,
  wasErasedSince,
} from '@atomo-cc/event-store';
import { formerNames } from '@atomo-cc/schema';
import type { TenantId } from '@atomo-cc/kernel';
import { localHashEmbedder, SemanticStore } from '@atomo-cc/memory';
import { openBlobStore } from '@atomo-cc/platform/blobs';
import { Health } from '@atomo-cc/platform/health';
import { LOGGER, runService } from '@atomo-cc/platform/lifecycle';
import { createLogger, withoutWords } from '@atomo-cc/platform/logging';
import { AppDatabase, migrate, openAppDatabase, openSystemDatabase, SystemDatabase } from '@atomo-cc/platform/postgres';
import { JobQueues, OutboxRelay } from '@atomo-cc/platform/queues';
import { openRedis } from '@atomo-cc/platform/redis';
import { Metrics } from '@atomo-cc/platform/telemetry';
import { RoleSchemas, serveApi, TrustedDocuments } from './api/index.js';
import { AppModule } from './app.module.js';
import { sessionsApi, tokensApi } from './auth/index.js';
import { contentCoreConfig } from './config.js';
import { auditApi, eventsApi } from './events/index.js';
import { Imports, ProgressFeed, syncJobsApi } from './historical-sync/index.js';
import { memoryApi } from './memory/index.js';
import { contentCoreMigrations } from './migrations.js';
import { createModelTables, loadSchema, modelsApi, projectionsOf, RecordCommands } from './models/index.js';
import { projectionsApi } from './projections/index.js';
import { secretsApi } from './secrets/index.js';
import { Erasures, SubjectExport, subjectsApi } from './subjects/index.js';
import { planApi, tenantsApi } from './tenants/index.js';
import { usersApi } from './users/index.js';

const NAME = 'content-core';
/** Relay, login and the shards of projections and their builds; a shard takes a connection while it has something to do. */
const SYSTEM_POOL = 8;
/** How long a browser believes what it was told of another origin's rights: Chromium's own greatest is two hours. */
const PREFLIGHT_SECONDS = 600;

await runService(async () => {
  const config = contentCoreConfig();
  const schema = await loadSchema(config.ATOMO_SERVICE);
  const trusted = config.TRUSTED_DOCUMENTS
    ? TrustedDocuments.read(resolve(config.ATOMO_SERVICE, config.TRUSTED_DOCUMENTS), config.TRUSTED_DOCUMENTS_MODE)
    : TrustedDocuments.NONE;
  await migrate(config.DATABASE_URL, contentCoreMigrations);
  const tables = await createModelTables(config.DATABASE_URL, schema);

  const logger = createLogger(NAME, config.LOG_LEVEL);
  for (const drift of tables.drift) logger.warn({ drift }, 'the tables of models were not as Atomo has left them');
  const reportRedis = (error: Error) => logger.warn({ err: error }, 'Redis does not answer');
  const pool = { url: config.DATABASE_URL, service: NAME, entities: accessEntities };
  const database = await openAppDatabase(pool);
  const system = await openSystemDatabase({ ...pool, poolSize: SYSTEM_POOL });
  const blobs = await openBlobStore(config.BLOBS_URL, database);
  const redis = openRedis(config.REDIS_URL, 'command', reportRedis);
  const subscriber = openRedis(config.REDIS_URL, 'blocking', reportRedis);
  const hinted = openRedis(config.REDIS_URL, 'blocking', reportRedis);
  const hints = new AppendHints(hinted);
  const queues = new JobQueues(redis);
  const relay = new OutboxRelay(system, queues, (error) => logger.warn({ err: error }, 'the outbox waits'));
  const store = new SemanticStore({ uri: config.MEMORY_URI });
  const imports = new Imports(database, blobs, relay, redis);
  const keys = new SubjectKeys(config.ENCRYPTION_KEY, config.ENCRYPTION_KEYS_ACCEPTED);
  const secrets = new Secrets(keys.ring);
  await system.transaction(async (tx) => {
    await keys.check(tx);
    await secrets.check(tx);
  });
  const codec = new EventCodec(keys, ATOMO_EVENTS.withFormerNames(formerNames(schema)));
  let runner: ProjectionRunner | undefined;
  const onAppended = (tenant: TenantId) => {
    runner?.wake();
    announceAppended(redis, tenant);
  };
  const access = openAccess(system, {
    secret: config.AUTH_SECRET,
    acceptedSecrets: config.AUTH_SECRETS_ACCEPTED,
    redis,
    onAppended,
    onError: (error) => logger.warn({ err: error }, 'refusals wait for the log'),
  });
  const erasures = new Erasures({
    schema,
    databaseUrl: config.DATABASE_URL,
    database,
    system,
    codec,
    memory: { store, embedder: localHashEmbedder },
    blobs,
    onError: (error, erasure) => logger.warn({ err: withoutWords(error), erasure: erasure?.id }, 'an erasure waits'),
  });
  const orders = new TenantOrders({
    system,
    codec,
    onAppended,
    onError: (error) => logger.warn({ err: withoutWords(error) }, 'an order about a tenant failed, or waits'),
  });
  const commands = new RecordCommands(schema, database, { codec, onAppended });
  const schemas = new RoleSchemas(
    [
      sessionsApi(access.sessions),
      tokensApi(access.tokens, database, schema.roles),
      secretsApi(secrets, database, onAppended),
      usersApi(new Accounts(database, codec, schema.roles), onAppended),
      planApi(database),
      tenantsApi(database, () => orders.rounds.wake()),
      modelsApi(schema, database, { codec, wasErasedSince, onAppended, changes: { fence: new Fence(), hints } }),
      eventsApi(database, codec),
      auditApi(database, codec),
      subjectsApi(schema, database, commands, () => erasures.rounds.wake()),
      projectionsApi(database),
      syncJobsApi(imports, new ProgressFeed(subscriber)),
      memoryApi({ database, store, embedder: localHashEmbedder }),
    ],
    schema.roles,
  );
  let sockets: { close(): Promise<void> } | undefined;

  return {
    name: NAME,
    config,
    port: config.CONTENT_CORE_PORT,
    module: AppModule.with({
      auth: { access, admin: { email: config.ADMIN_EMAIL, password: config.ADMIN_PASSWORD } },
      schema,
      imports,
      exports: new SubjectExport(schema, database, codec),
    }),
    provide: [
      { provide: AppDatabase, useValue: database },
      { provide: SystemDatabase, useValue: system },
    ],
    configure: async (app) => {
      // One file a request, of any size: it is streamed into storage, never held.
      await app.register(multipart, { limits: { fileSize: Infinity, files: 1, fields: 8 } });
      const fastify = app.getHttpAdapter().getInstance();
      // Without it a browser shows no answer to a page of another origin, and asks before it sends what is no plain form.
      if (config.CORS_ORIGINS.length > 0) {
        await fastify.register(cors, {
          origin: [...config.CORS_ORIGINS],
          methods: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'],
          allowedHeaders: ['authorization', 'content-type', 'if-none-match', 'traceparent'],
          exposedHeaders: ['etag', 'retry-after', 'x-request-id'],
          maxAge: PREFLIGHT_SECONDS,
        });
      }
      sockets = serveApi(fastify, {
        schemas,
        admit: (authorization) => access.callers.admit(authorization),
        authenticate: (authorization, believedMs) => access.callers.authenticate(authorization, believedMs),
        introspection: config.isIntrospected,
        trusted,
        logger: app.get(LOGGER),
        isTrustedProxy: config.TRUSTED_PROXIES,
        onDenied: (principal, operation, from) => access.refusals.denied(principal, operation, from),
      });
      runner = new ProjectionRunner({
        database: system,
        databaseUrl: config.DATABASE_URL,
        projections: projectionsOf(schema, codec),
        decode: (tx, events) => codec.decode(tx, events),
        hints,
        metrics: app.get(Metrics),
        onError: (error, shard) => logger.warn({ err: withoutWords(error), shard }, 'a projection failed'),
      });
      await runner.start();
      erasures.rounds.start();
      orders.rounds.start();
      const health = app.get(Health);
      health.add('postgres', () => database.ping());
      health.add('redis', () => redis.ping());
      if (config.BLOBS_URL) health.add('blobs', () => blobs.ping());
      relay.start();
    },
    close: async () => {
      await sockets?.close();
      await runner?.stop();
      await erasures.rounds.stop();
      await orders.rounds.stop();
      await relay.stop();
      await access.close();
      await queues.close();
      redis.disconnect();
      subscriber.disconnect();
      hinted.disconnect();
      blobs.close();
      await Promise.all([database.close(), system.close()]);
    },
  };
});
