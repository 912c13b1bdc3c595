import multipart from '@fastify/multipart';
import { accessEntities, Sessions } from '@atomo-cc/access';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, SubjectKeys, wasErasedSince } from '@atomo-cc/event-store';
import { localHashEmbedder, SemanticStore } from '@atomo-cc/memory';
import { openBlobStore } from '@atomo-cc/platform/blobs';
import { Health } from '@atomo-cc/platform/health';
import { LOGGER, runService } from '@atomo-cc/platform/lifecycle';
import { createLogger } from '@atomo-cc/platform/logging';
import { AppDatabase, migrate, openAppDatabase, openSystemDatabase, SystemDatabase } from '@atomo-cc/platform/postgres';
import { JobQueues, OutboxRelay } from '@atomo-cc/platform/queues';
import { openRedis } from '@atomo-cc/platform/redis';
import { buildApiSchema, serveApi } from './api/index.js';
import { AppModule } from './app.module.js';
import { contentCoreConfig } from './config.js';
import { eventsApi } from './events/index.js';
import { Imports, ProgressFeed, syncJobsApi } from './historical-sync/index.js';
import { memoryApi } from './memory/index.js';
import { contentCoreMigrations } from './migrations.js';
import { createModelTables, loadSchema, modelsApi } from './models/index.js';

const NAME = 'content-core';

await runService(async () => {
  const config = contentCoreConfig();
  const schema = await loadSchema(config.ATOMO_SERVICE);
  await migrate(config.DATABASE_URL, contentCoreMigrations);
  await createModelTables(config.DATABASE_URL, schema);

  const logger = createLogger(NAME, config.LOG_LEVEL);
  const reportRedis = (error: Error) => logger.warn({ err: error }, 'Redis does not answer');
  const pool = { url: config.DATABASE_URL, service: NAME, entities: accessEntities };
  const database = await openAppDatabase(pool);
  const system = await openSystemDatabase({ ...pool, poolSize: 4 });
  const blobs = await openBlobStore(config.BLOBS_URL, database);
  const redis = openRedis(config.REDIS_URL, 'command', reportRedis);
  const subscriber = openRedis(config.REDIS_URL, 'blocking', reportRedis);
  const queues = new JobQueues(redis);
  const relay = new OutboxRelay(system, queues, (error) => logger.warn({ err: error }, 'the outbox waits'));
  const store = new SemanticStore({ uri: config.MEMORY_URI });
  const imports = new Imports(database, blobs, relay, redis);
  const keys = new SubjectKeys(config.ENCRYPTION_KEY);
  await system.transaction((tx) => keys.check(tx));
  const codec = new EventCodec(keys, ATOMO_EVENTS);
  const apiSchema = buildApiSchema([
    modelsApi(schema, database, { codec, wasErasedSince }),
    eventsApi(database, codec),
    syncJobsApi(imports, new ProgressFeed(subscriber)),
    memoryApi({ database, store, embedder: localHashEmbedder }),
  ]);
  let sockets: { close(): Promise<void> } | undefined;

  return {
    name: NAME,
    config,
    port: config.CONTENT_CORE_PORT,
    module: AppModule.with({
      auth: { secret: config.AUTH_SECRET, admin: { email: config.ADMIN_EMAIL, password: config.ADMIN_PASSWORD } },
      schema,
      imports,
    }),
    provide: [
      { provide: AppDatabase, useValue: database },
      { provide: SystemDatabase, useValue: system },
    ],
    configure: async (app) => {
      // One file a request, of any size: it is streamed into storage, never held.
      await app.register(multipart, { limits: { fileSize: Infinity, files: 1, fields: 8 } });
      const fastify = app.getHttpAdapter().getInstance();
      const sessions = app.get(Sessions, { strict: false });
      sockets = serveApi(fastify, {
        schema: apiSchema,
        authenticate: (authorization) => sessions.authenticate(authorization),
        logger: app.get(LOGGER),
      });
      const health = app.get(Health);
      health.add('postgres', () => database.ping());
      health.add('redis', () => redis.ping());
      if (config.BLOBS_URL) health.add('blobs', () => blobs.ping());
      relay.start();
    },
    close: async () => {
      await sockets?.close();
      await relay.stop();
      await queues.close();
      redis.disconnect();
      subscriber.disconnect();
      blobs.close();
      await Promise.all([database.close(), system.close()]);
    },
  };
});
