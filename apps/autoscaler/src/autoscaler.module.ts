import { type DynamicModule, Module } from '@nestjs/common';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { OutboxRelay, type JobQueues } from '@atomo-cc/platform/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import { Metrics } from '@atomo-cc/platform/telemetry';
import { ControlLoop, Figures, Observer, type Leadership, type Limits, type SharedState } from './control/index.js';
import type { WorkerProvider } from './fleet/index.js';
import { OPS_ACCESS, OPS_PARTS, OpsController, OpsTokenGuard, type OpsAccess } from './ops/index.js';
import { Reaper, type Reap } from './reaper.js';

/** What the autoscaler stands on. */
export interface Ground {
  readonly database: SystemDatabase;
  readonly redis: Redis;
  readonly queues: JobQueues;
  readonly state: SharedState;
  readonly provider: WorkerProvider;
  readonly leadership: Leadership;
  readonly limits: Limits;
  readonly access: OpsAccess;
  /** Puts abandoned jobs back into the outbox. */
  readonly reap: Reap;
}

/** Wires the autoscaler. */
@Module({})
export class AutoscalerModule {
  static with(ground: Ground): DynamicModule {
    const { database, redis, queues, state, provider, leadership, limits } = ground;
    return {
      module: AutoscalerModule,
      controllers: [OpsController],
      providers: [
        { provide: Figures, inject: [Metrics], useFactory: (metrics: Metrics) => new Figures(metrics) },
        {
          provide: ControlLoop,
          inject: [Figures, LOGGER],
          useFactory: (figures: Figures, logger: Logger) => {
            const observer = new Observer(provider, queues, redis, state);
            return new ControlLoop({ provider, leadership, observer, state, redis, limits, figures, logger });
          },
        },
        {
          provide: OutboxRelay,
          inject: [LOGGER],
          useFactory: (logger: Logger) =>
            new OutboxRelay(database, queues, (error) => logger.warn({ err: error }, 'jobs wait in the outbox')),
        },
        {
          provide: Reaper,
          inject: [OutboxRelay, LOGGER],
          useFactory: (relay: OutboxRelay, logger: Logger) =>
            new Reaper({
              database,
              reap: ground.reap,
              leads: () => leadership.isHeld,
              onReaped: (jobs) => {
                logger.warn({ jobs }, 'abandoned jobs are queued again');
                relay.kick();
              },
              onError: (error) => logger.warn({ err: error }, 'abandoned jobs could not be looked for'),
            }),
        },
        {
          provide: OPS_PARTS,
          inject: [ControlLoop],
          useFactory: (loop: ControlLoop) => ({ queues, redis, provider, state, leadership, loop, limits }),
        },
        { provide: OPS_ACCESS, useValue: ground.access },
        OpsTokenGuard,
      ],
    };
  }
}
