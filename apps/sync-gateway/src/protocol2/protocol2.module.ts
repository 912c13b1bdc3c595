import { type DynamicModule, Module } from '@nestjs/common';
import { Sync } from './sync.js';
import { SyncController } from './sync.controller.js';
import { SyncGateway } from './sync.gateway.js';

/** Protocol 2 over sockets and REST. */
@Module({ controllers: [SyncController], providers: [Sync, SyncGateway], exports: [Sync] })
export class Protocol2Module {
  /** @param ground gives the database, the keys, the bounds, the feeds, the handshakes and the way to write */
  static on(ground: DynamicModule): DynamicModule {
    return { module: Protocol2Module, imports: [ground] };
  }
}
