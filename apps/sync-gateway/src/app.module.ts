import { type DynamicModule, Module } from '@nestjs/common';
import { APP_FILTER } from '@nestjs/core';
import { AppDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { CredentialsModule } from './credentials/index.js';
import { RestFaults } from './faults/index.js';
import { FilesModule } from './files/index.js';
import { SocketsModule } from './sockets/index.js';
import { StoresModule } from './stores/index.js';

/** What the gateway stands on. */
export interface Ground {
  readonly app: AppDatabase;
  readonly system: SystemDatabase;
  readonly redisUrl: string;
  readonly masterKey: string;
}

/** What every feature needs: the tenant's database, the keys, the sockets. */
@Module({})
class GroundModule {}

/** Wires the gateway. */
@Module({})
export class AppModule {
  static with({ app, system, redisUrl, masterKey }: Ground): DynamicModule {
    const database = { provide: AppDatabase, useValue: app };
    const credentials = CredentialsModule.with(system, masterKey);
    const shared = [credentials, SocketsModule.with(redisUrl, credentials)];
    const ground = { module: GroundModule, imports: shared, providers: [database], exports: [database, ...shared] };
    return {
      module: AppModule,
      imports: [ground, FilesModule.on(ground), StoresModule.on(ground)],
      providers: [{ provide: APP_FILTER, useClass: RestFaults }],
    };
  }
}
