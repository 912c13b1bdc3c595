import { type DynamicModule, Module } from '@nestjs/common';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { Retention } from './retention.js';

/** What happens by itself, under the system role. */
@Module({})
export class UpkeepModule {
  static with(system: SystemDatabase, retentionDays: number): DynamicModule {
    const retention = {
      provide: Retention,
      useFactory: (logger: Logger) => new Retention(system, retentionDays, logger),
      inject: [LOGGER],
    };
    return { module: UpkeepModule, providers: [retention], exports: [Retention] };
  }
}
