import { BullModule } from '@nestjs/bullmq';
import { Module, type DynamicModule } from '@nestjs/common';
import type { Redis } from '@atomo-cc/platform/redis';
import { HISTORICAL_SYNC_QUEUE, QUEUES } from '@atomo-cc/queues';
import { HistoricalSyncProcessor, ImportResources } from './import/index.js';

/** The processors of this worker, by the queue each handles. */
const HANDLERS = [[HISTORICAL_SYNC_QUEUE, HistoricalSyncProcessor]] as const;

/** Wires the queues to their processors. */
@Module({})
export class WorkerModule {
  /** @param redis a connection of use `blocking` */
  static with(redis: Redis, resources: ImportResources): DynamicModule {
    for (const queue of QUEUES) {
      const handlers = HANDLERS.filter(([handled]) => handled.name === queue.name);
      if (handlers.length !== 1)
        throw new Error(`queue ${queue.name} has ${handlers.length} handlers; it needs exactly one`);
    }
    return {
      module: WorkerModule,
      imports: [
        BullModule.forRoot({ connection: redis }),
        BullModule.registerQueue(...QUEUES.map(({ name }) => ({ name }))),
      ],
      providers: [{ provide: ImportResources, useValue: resources }, ...HANDLERS.map(([, processor]) => processor)],
    };
  }
}
