import { type DynamicModule, Module } from '@nestjs/common';
import { FileWrites } from './file-writes.js';
import { FilesController } from './files.controller.js';
import { FilesGateway } from './files.gateway.js';

/** Files over REST and sockets. */
@Module({ controllers: [FilesController], providers: [FileWrites, FilesGateway] })
export class FilesModule {
  /** @param ground gives the database, the keys and the sockets */
  static on(ground: DynamicModule): DynamicModule {
    return { module: FilesModule, imports: [ground] };
  }
}
