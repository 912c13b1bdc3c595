import { type DynamicModule, Inject, Injectable, Module, type OnApplicationShutdown } from '@nestjs/common';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { Metrics } from '@atomo-cc/platform/telemetry';
import { Clients } from './clients.js';
import { Relay } from './relay.js';
import { Revocation } from './revocation.js';

@Injectable()
class RelayEnd implements OnApplicationShutdown {
  constructor(@Inject(Relay) private readonly relay: Relay) {}

  /** Nest calls this after it closed the Socket.IO server. */
  onApplicationShutdown(): void {
    this.relay.close();
  }
}

/** Provides the sockets and the way to the other nodes. */
@Module({})
export class SocketsModule {
  static with(redisUrl: string, credentials: DynamicModule): DynamicModule {
    const relay = {
      provide: Relay,
      useFactory: (logger: Logger, metrics: Metrics) => new Relay(redisUrl, logger, metrics),
      inject: [LOGGER, Metrics],
    };
    return {
      module: SocketsModule,
      imports: [credentials],
      providers: [relay, RelayEnd, Clients, Revocation],
      exports: [Relay, Clients],
    };
  }
}
