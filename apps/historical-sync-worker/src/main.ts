import { migrate, openAppDatabase, openSystemDatabase } from '@atomo-cc/platform/postgres';
import { openBlobStore } from '@atomo-cc/platform/blobs';
import { runService } from '@atomo-cc/platform/lifecycle';
import { createLogger } from '@atomo-cc/platform/logging';
import { JobQueues, OutboxRelay } from '@atomo-cc/platform/queues';
import { openRedis } from '@atomo-cc/platform/redis';
import { Health } from '@atomo-cc/platform/health';
import { startWorkerBeat, type WorkerBeat } from '@atomo-cc/platform/workers';
import { localHashEmbedder, SemanticStore } from '@atomo-cc/memory';
import { workerConfig } from './config.js';
import { HistoricalSyncProcessor, ImportResources } from './import/index.js';
import { workerMigrations } from './migrations.js';
import { WorkerModule } from './worker.module.js';

const NAME = 'historical-sync-worker';

await runService(async () => {
  const config = workerConfig();
  await migrate(config.DATABASE_URL, workerMigrations);
  const logger = createLogger(NAME, config.LOG_LEVEL);
  const reportRedis = (error: Error) => logger.warn({ err: error }, 'Redis does not answer');
  const database = await openAppDatabase({ url: config.DATABASE_URL, service: NAME });
  const system = await openSystemDatabase({ url: config.DATABASE_URL, service: NAME, poolSize: 2 });
  const blobs = await openBlobStore(config.BLOBS_URL, database);
  const redis = openRedis(config.REDIS_URL, 'command', reportRedis);
  const blocking = openRedis(config.REDIS_URL, 'blocking', reportRedis);
  const queues = new JobQueues(redis);
  const relay = new OutboxRelay(system, queues, (error) => logger.warn({ err: error }, 'the outbox waits'));
  relay.start();
  const index = { store: new SemanticStore({ uri: config.MEMORY_URI }), embedder: localHashEmbedder };
  const resources = new ImportResources({ database, blobs, index }, relay, redis);
  let beat: WorkerBeat | undefined;

  return {
    name: NAME,
    module: WorkerModule.with(blocking, resources),
    config,
    port: config.WORKER_PORT,
    configure: (app) => {
      const health = app.get(Health);
      health.add('postgres', () => database.ping());
      health.add('redis', () => redis.ping());
      if (config.BLOBS_URL) health.add('blobs', () => blobs.ping());
    },
    listening: (url, app) => {
      const processor = app.get(HistoricalSyncProcessor);
      beat = startWorkerBeat(redis, {
        name: NAME,
        url,
        activeJobs: () => processor.activeJobs,
        onDrain: () => processor.drain(),
        machine: config.FLY_MACHINE_ID,
      });
      processor.onActivity = () => void beat?.update();
    },
    close: async () => {
      await beat?.stop();
      await relay.stop();
      await queues.close();
      redis.disconnect();
      blocking.disconnect();
      blobs.close();
      await Promise.all([database.close(), system.close()]);
    },
  };
});
