import { type DynamicModule, Module } from '@nestjs/common';
import { StoresController } from './stores.controller.js';

/** The admin routes. */
@Module({ controllers: [StoresController] })
export class StoresModule {
  /** @param ground gives the database, the keys and the sockets */
  static on(ground: DynamicModule): DynamicModule {
    return { module: StoresModule, imports: [ground] };
  }
}
