import { hostname } from 'node:os';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { accessMigrations, releaseExpired, withRoom } from '@atomo-cc/access';
import { sleep, uuidv7 } from '@atomo-cc/kernel';
import { Health } from '@atomo-cc/platform/health';
import type { ServiceOptions } from '@atomo-cc/platform/lifecycle';
import { createLogger } from '@atomo-cc/platform/logging';
import { Leases1700000001000, migrate, openSystemDatabase } from '@atomo-cc/platform/postgres';
import { JobQueues, Outbox1700000002000, OutboxRelay } from '@atomo-cc/platform/queues';
import { openRedis, type Redis } from '@atomo-cc/platform/redis';
import { reapAbandoned, renewWaiting, syncJobMigrations } from '@atomo-cc/sync-jobs';
import { AutoscalerModule, type Ground } from './autoscaler.module.js';
import type { AutoscalerConfig } from './config.js';
import { ControlLoop, Leadership, SharedState } from './control/index.js';
import { LocalProvider, redisLedger, watchingProvider, type WorkerProvider } from './fleet/index.js';
import { FlyProvider } from './fly/index.js';
import { type Reap, Reaper } from './reaper.js';

/** The tables that the autoscaler reads and writes. */
export const autoscalerMigrations = [
  Leases1700000001000,
  Outbox1700000002000,
  ...accessMigrations,
  ...syncJobMigrations,
];

/** Connections to Postgres: the lease, the reaper, the relay and the health check take one at a time each. */
const POOL_SIZE = 4;

/** Machines that may exist for each worker that may run: room for those that Fly lost or that a deployment leaves behind. */
const MACHINES_PER_WORKER = 2;

/**
 * Migrates, opens the connections and tells how the autoscaler is run.
 * @param workerScript the worker's program, for provider `local`
 */
export async function autoscalerService(config: AutoscalerConfig, workerScript: string): Promise<ServiceOptions> {
  await migrate(config.DATABASE_URL, autoscalerMigrations);
  const logger = createLogger('autoscaler', config.LOG_LEVEL);
  const database = await openSystemDatabase({ url: config.DATABASE_URL, service: 'autoscaler', poolSize: POOL_SIZE });
  const redis = openRedis(config.REDIS_URL, 'command', (error) => logger.warn({ err: error }, 'Redis does not answer'));
  const queues = new JobQueues(redis);
  const ground: Ground = {
    database,
    redis,
    queues,
    state: new SharedState(redis),
    provider: providerOf(config, workerScript, redis),
    leadership: new Leadership(database, `${hostname()}-${process.pid}-${uuidv7()}`),
    limits: {
      maxWorkers: config.MAX_WORKERS,
      scaleUpQueueDepth: config.SCALE_UP_QUEUE_DEPTH,
      scaleDownIdleMs: config.SCALE_DOWN_IDLE_MINUTES * 60_000,
    },
    access: { token: config.AUTOSCALER_TOKEN, readsNeedToken: config.readsNeedToken },
    reap,
  };
  let running: NestFastifyApplication | undefined;
  return {
    name: 'autoscaler',
    module: AutoscalerModule.with(ground),
    config,
    port: config.AUTOSCALER_PORT,
    configure: (app) => {
      const health = app.get(Health);
      health.add('postgres', () => database.transaction((tx) => tx.query('select 1')));
      health.add('redis', () => redis.ping());
    },
    // Not before it listens: an autoscaler that finds its port taken must not leave workers behind.
    listening: (_url, app) => {
      running = app;
      app.get(ControlLoop).start();
      app.get(OutboxRelay).start();
      app.get(Reaper).start();
    },
    close: async () => {
      await running?.get(ControlLoop).stop();
      await running?.get(Reaper).stop();
      await running?.get(OutboxRelay).stop();
      await queues.close().catch(() => undefined);
      redis.disconnect();
      await database.close();
    },
  };
}

/** What a worker that died has reserved is free first, so that jobs which wait for it go on. */
const reap: Reap = async (tx) => {
  await releaseExpired(tx);
  const abandoned = await reapAbandoned(tx);
  return [...abandoned, ...(await renewWaiting(tx, withRoom))];
};

function providerOf(config: AutoscalerConfig, script: string, redis: Redis): WorkerProvider {
  switch (config.AUTOSCALER_PROVIDER) {
    case 'local':
      return new LocalProvider({
        script,
        firstPort: config.WORKER_PORT,
        host: config.HOST,
        environment: config.workerEnvironment,
        logs: config.workerLogs,
        ledger: redisLedger(redis),
      });
    case 'fly':
      return new FlyProvider({
        url: config.FLY_API_URL,
        token: config.FLY_API_TOKEN,
        app: config.FLY_WORKER_APP,
        group: config.FLY_WORKER_GROUP,
        maxMachines: MACHINES_PER_WORKER * config.MAX_WORKERS,
        now: Date.now,
        sleep,
      });
    case 'none':
      return watchingProvider();
  }
}
