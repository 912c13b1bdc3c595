import { type DynamicModule, Module } from '@nestjs/common';
import { Devices } from '../audit/index.js';
import { Handshakes } from './handshakes.js';

/** Provides who gets a socket, and the devices that did. */
@Module({ providers: [Devices, Handshakes], exports: [Devices, Handshakes] })
export class HandshakeModule {
  /** @param ground gives the database, the keys, the bounds and the feeds */
  static on(ground: DynamicModule): DynamicModule {
    return { module: HandshakeModule, imports: [ground] };
  }
}
