import { type DynamicModule, Module } from '@nestjs/common';
import { Handshakes } from './handshakes.js';

/** Provides who gets a socket. */
@Module({ providers: [Handshakes], exports: [Handshakes] })
export class HandshakeModule {
  /** @param ground gives the keys, the bounds and the feeds */
  static on(ground: DynamicModule): DynamicModule {
    return { module: HandshakeModule, imports: [ground] };
  }
}
