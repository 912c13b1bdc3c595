import { UseFilters } from '@nestjs/common';
import { ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import {
  type Ack2,
  Applied,
  type Changes,
  CLIENT_EVENTS_2,
  type ContentHash,
  type DigestAnswer,
  DigestQuery,
  Missing,
  type OpResult,
  parsePayload,
  parsePresence,
  type Permission,
  type Presence,
  Pull,
  syncError,
  Upload,
} from '@atomo-cc/sync-protocol';
import { requirePermission, type StoreKey } from '../credentials/index.js';
import { Devices } from '../audit/index.js';
import { Bounds } from '../bounds/index.js';
import { AckFaults } from '../faults/index.js';
import { Feeds } from '../feeds/index.js';
import { Handshakes } from '../handshake/index.js';
import { Clients, type ClientSocket } from '../sockets/index.js';
import { Sync } from './sync.js';

/** The socket events of protocol 2. The key is asked for on every one of them, before the payload is looked at. */
@WebSocketGateway()
@UseFilters(AckFaults)
export class SyncGateway {
  constructor(
    private readonly handshakes: Handshakes,
    private readonly sync: Sync,
    private readonly clients: Clients,
    private readonly bounds: Bounds,
    private readonly feeds: Feeds,
    private readonly devices: Devices,
  ) {}

  @SubscribeMessage(CLIENT_EVENTS_2.push)
  async push(
    @ConnectedSocket() socket: ClientSocket,
    @MessageBody() payload: unknown,
  ): Promise<Ack2<{ results: OpResult[] }>> {
    const key = await this.keyOf(socket, 'write');
    const caller = { device: socket.data.device!.id, from: { address: socket.handshake.address } };
    return { success: true, ...(await this.sync.push(key, caller, payload)) };
  }

  @SubscribeMessage(CLIENT_EVENTS_2.pull)
  async pull(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack2<Changes>> {
    const key = await this.keyOf(socket, 'read');
    const { epoch, from, limit } = parsePayload(Pull, payload);
    return { success: true, ...(await this.sync.pull(key, { epoch, from }, limit ?? undefined)) };
  }

  @SubscribeMessage(CLIENT_EVENTS_2.digest)
  async digest(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack2<DigestAnswer>> {
    const key = await this.keyOf(socket, 'read');
    const { prefix } = parsePayload(DigestQuery, payload);
    return { success: true, ...(await this.sync.digest(key, prefix ?? undefined)) };
  }

  @SubscribeMessage(CLIENT_EVENTS_2.missing)
  async missing(
    @ConnectedSocket() socket: ClientSocket,
    @MessageBody() payload: unknown,
  ): Promise<Ack2<{ missing: ContentHash[] }>> {
    const key = await this.keyOf(socket, 'write');
    return { success: true, ...(await this.sync.missing(key, parsePayload(Missing, payload).hashes)) };
  }

  @SubscribeMessage(CLIENT_EVENTS_2.upload)
  async upload(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack2<object>> {
    const key = await this.keyOf(socket, 'write');
    const { hash, bytes } = parsePayload(Upload, payload);
    await this.sync.upload(key, hash, bytes);
    return { success: true };
  }

  @SubscribeMessage(CLIENT_EVENTS_2.download)
  async download(
    @ConnectedSocket() socket: ClientSocket,
    @MessageBody() payload: unknown,
  ): Promise<Ack2<{ bytes: Buffer; size: number }>> {
    const key = await this.keyOf(socket, 'read');
    return { success: true, ...(await this.sync.download(key, payload)) };
  }

  /** Where the client stands: what it is sent next follows from it, and the operator sees it. */
  @SubscribeMessage(CLIENT_EVENTS_2.ack)
  async ack(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack2<object>> {
    const key = await this.keyOf(socket, 'read');
    const applied = parsePayload(Applied, payload);
    this.bounds.take(key.id, 1);
    (await this.feeds.open(key)).applied(socket, applied);
    this.devices.applied(key, socket.data.device!.id, applied);
    return { success: true };
  }

  @SubscribeMessage(CLIENT_EVENTS_2.setPresence)
  async setPresence(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack2<object>> {
    this.present(await this.keyOf(socket, 'read'));
    const { id, name } = socket.data.device!;
    this.clients.showPresence(socket, { deviceId: id, name: name ?? null, state: parsePresence(payload) });
    return { success: true };
  }

  @SubscribeMessage(CLIENT_EVENTS_2.listPresence)
  async listPresence(@ConnectedSocket() socket: ClientSocket): Promise<Ack2<{ present: Presence[] }>> {
    const key = await this.keyOf(socket, 'read');
    this.present(key);
    return { success: true, present: await this.clients.present(key.storeId) };
  }

  /** Presence tells where in the store somebody is, so it is for those who see all of it. */
  private present(key: StoreKey): void {
    if (key.prefixes.length > 0) throw syncError('FORBIDDEN', 'Keys of single folders have no part in presence.');
    this.bounds.take(key.id, 1);
  }

  private async keyOf(socket: ClientSocket, needed: Permission): Promise<StoreKey> {
    const key = await this.handshakes.keyOf(socket);
    if (socket.data.protocol !== 2) {
      throw syncError('VALIDATION_ERROR', 'This event is of protocol 2, and the handshake was not.');
    }
    requirePermission(key, needed);
    return key;
  }
}
