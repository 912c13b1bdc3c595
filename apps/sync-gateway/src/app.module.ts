import { type DynamicModule, Module } from '@nestjs/common';
import { APP_FILTER } from '@nestjs/core';
import { AppDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { Bounds, type BoundsConfig } from './bounds/index.js';
import { ConnectionsModule } from './connections/index.js';
import { CredentialsModule } from './credentials/index.js';
import { RestFaults } from './faults/index.js';
import { FeedsModule } from './feeds/index.js';
import { FilesModule } from './files/index.js';
import { HandshakeModule } from './handshake/index.js';
import { Protocol2Module } from './protocol2/index.js';
import { SettingsModule } from './settings/index.js';
import { SocketsModule } from './sockets/index.js';
import { StoresModule } from './stores/index.js';
import { UpkeepModule } from './upkeep/index.js';

/** What the gateway stands on. */
export interface Ground {
  readonly app: AppDatabase;
  readonly system: SystemDatabase;
  readonly redisUrl: string;
  readonly masterKey: string;
  readonly bounds: BoundsConfig;
}

/** What every feature needs: the tenant's database, the keys, the sockets, the bounds. */
@Module({})
class GroundModule {}

/** Wires the gateway. */
@Module({})
export class AppModule {
  static with({ app, system, redisUrl, masterKey, bounds }: Ground): DynamicModule {
    const provided = [
      { provide: AppDatabase, useValue: app },
      { provide: Bounds, useValue: new Bounds(bounds) },
    ];
    const credentials = CredentialsModule.with(system, masterKey);
    const shared = [credentials, SocketsModule.with(redisUrl, credentials)];
    const ground = { module: GroundModule, imports: shared, providers: provided, exports: [...provided, ...shared] };
    const feeds = FeedsModule.on(ground);
    const handshake = HandshakeModule.on(over(ground, feeds));
    const files = FilesModule.on(over(ground, feeds, handshake));
    const protocol2 = Protocol2Module.on(over(ground, feeds, handshake, files));
    return {
      module: AppModule,
      imports: [
        credentials,
        files,
        protocol2,
        ConnectionsModule.on(over(ground, feeds, handshake, files, protocol2)),
        SettingsModule.on(ground),
        StoresModule.on(ground),
        UpkeepModule.with(system, bounds.retentionDays),
      ],
      providers: [{ provide: APP_FILTER, useClass: RestFaults }],
    };
  }
}

/** One module of several, for those who stand on them. */
function over(...modules: DynamicModule[]): DynamicModule {
  return { module: class Floor {}, imports: modules, exports: modules };
}
