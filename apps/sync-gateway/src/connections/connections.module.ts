import { type DynamicModule, Module } from '@nestjs/common';
import { ConnectionsGateway } from './connections.gateway.js';

/** Sockets from their handshake to their end. */
@Module({ providers: [ConnectionsGateway] })
export class ConnectionsModule {
  /** @param ground gives the sockets, the handshakes, the feeds, the way to write and protocol 2 */
  static on(ground: DynamicModule): DynamicModule {
    return { module: ConnectionsModule, imports: [ground] };
  }
}
