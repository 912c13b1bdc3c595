import { type DynamicModule, Module } from '@nestjs/common';
import { FileWrites } from './file-writes.js';
import { FilesController } from './files.controller.js';
import { FilesGateway } from './files.gateway.js';
import { Protocol1Writes } from './protocol1-writes.js';

/** The way to write files, and protocol 1 over REST and sockets. */
@Module({
  controllers: [FilesController],
  providers: [FileWrites, Protocol1Writes, FilesGateway],
  exports: [FileWrites],
})
export class FilesModule {
  /** @param ground gives the database, the keys, the bounds, the feeds and the handshakes */
  static on(ground: DynamicModule): DynamicModule {
    return { module: FilesModule, imports: [ground] };
  }
}
