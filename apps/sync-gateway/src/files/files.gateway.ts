import { type BeforeApplicationShutdown, Inject, UseFilters } from '@nestjs/common';
import {
  ConnectedSocket,
  MessageBody,
  type OnGatewayConnection,
  type OnGatewayInit,
  SubscribeMessage,
  WebSocketGateway,
} from '@nestjs/websockets';
import { tenantId } from '@atomo-cc/kernel';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  type Ack,
  type Broadcast,
  CLIENT_EVENTS,
  CreatedFile,
  DeletedFile,
  ModifiedFile,
  parsePayload,
  RenamedFile,
  syncError,
  type SyncPath,
  syncPath,
} from '@atomo-cc/sync-protocol';
import { KeyRing, requirePermission } from '../credentials/index.js';
import { AckFaults } from '../faults/index.js';
import { type ClientServer, type ClientSocket, LONG_CHANGE, type LongChange, Rooms } from '../sockets/index.js';
import { type Change, put } from './changes.js';
import { readFile } from './file-rows.js';
import { FileWrites } from './file-writes.js';

/** The socket events of protocol 1. */
@WebSocketGateway()
@UseFilters(AckFaults)
export class FilesGateway
  implements OnGatewayInit<ClientServer>, OnGatewayConnection<ClientSocket>, BeforeApplicationShutdown
{
  constructor(
    private readonly keys: KeyRing,
    private readonly rooms: Rooms,
    private readonly writes: FileWrites,
    private readonly database: AppDatabase,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  afterInit(server: ClientServer): void {
    this.rooms.open(server);
    // Nest's guards do not run for connections, and an error thrown there ends the process: the handshake is a middleware.
    server.use(async (socket, next) => next(await this.shakeHands(socket)));
    server.on(LONG_CHANGE as never, ((change: LongChange) => void this.pass(change)) as never);
  }

  handleConnection(socket: ClientSocket): void {
    this.rooms.join(socket);
  }

  @SubscribeMessage(CLIENT_EVENTS.created)
  async created(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack> {
    return this.act(socket, () => put(syncPath(parsePayload(CreatedFile, payload).path), '', 'keep'));
  }

  @SubscribeMessage(CLIENT_EVENTS.modified)
  async modified(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack> {
    return this.act(socket, () => {
      const { path, content } = parsePayload(ModifiedFile, payload);
      return put(syncPath(path), content, 'overwrite');
    });
  }

  @SubscribeMessage(CLIENT_EVENTS.deleted)
  async deleted(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack> {
    return this.act(socket, () => ({ kind: 'delete', path: syncPath(parsePayload(DeletedFile, payload).path) }));
  }

  @SubscribeMessage(CLIENT_EVENTS.renamed)
  async renamed(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack> {
    return this.act(socket, () => {
      const { oldPath, newPath } = parsePayload(RenamedFile, payload);
      return { kind: 'rename', from: syncPath(oldPath), to: syncPath(newPath) };
    });
  }

  /** Sockets would keep the HTTP server open; clients come back to another node. What was accepted is acked before. */
  async beforeApplicationShutdown(): Promise<void> {
    await this.writes.drain();
    // Lets Nest hand the answers to the sockets, which send what they hold before they close.
    await new Promise((resolve) => setImmediate(resolve));
    this.rooms.disconnect(() => true);
  }

  /** Finds the key of the handshake, or answers why there is none: the client reads it as connect_error.message. */
  private async shakeHands(socket: ClientSocket): Promise<Error | undefined> {
    try {
      const { auth, query } = socket.handshake;
      const presented: unknown = auth['apiKey'] ?? query['apiKey'];
      if (presented === undefined || presented === '') return new Error('UNAUTHORIZED');
      const key = await this.keys.find(presented);
      if (!key) return new Error('INVALID_KEY');
      socket.data.key = key;
      return undefined;
    } catch (error) {
      this.logger.error({ err: error }, 'a handshake failed');
      return new Error('INTERNAL_ERROR');
    }
  }

  /** The permission is decided anew for every event, before the payload is looked at. */
  private async act(socket: ClientSocket, read: () => Change): Promise<Ack> {
    const key = await this.keys.current(socket.data.key.hash);
    if (!key) {
      // After the ack has left.
      setImmediate(() => socket.disconnect(true));
      throw syncError('UNAUTHORIZED', 'The API key was revoked.');
    }
    requirePermission(key, 'write');
    const change = read();
    const { seq, file } = await this.writes.write(key, change, socket.id);
    return change.kind === 'put' && file ? { success: true, hash: file.hash, seq } : { success: true, seq };
  }

  /** Another node wrote a file too long for Redis: reads it, and tells the readers here unless a newer change will. */
  private async pass({ tenantId: tenant, storeId, event, path, oldPath, seq }: LongChange): Promise<void> {
    if (!this.rooms.hasReaders(storeId)) return;
    try {
      const file = await this.database.transaction(tenantId(tenant), (tx) => readFile(tx, storeId, path as SyncPath));
      if (file.seq !== seq) return;
      const { createdAt, updatedAt, ...state } = file;
      const payload =
        oldPath === undefined ? { ...state, createdAt, updatedAt } : { ...state, oldPath, newPath: path, updatedAt };
      this.rooms.announceHere(storeId, { event, payload } as Broadcast);
    } catch (error) {
      this.logger.debug({ err: error }, 'a change of another node could not be passed on; the log has it');
    }
  }
}
