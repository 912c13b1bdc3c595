import { UseFilters } from '@nestjs/common';
import { ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import {
  type Ack,
  CLIENT_EVENTS,
  CreatedFile,
  DeletedFile,
  ModifiedFile,
  parsePayload,
  RenamedFile,
} from '@atomo-cc/sync-protocol';
import { requirePermission } from '../credentials/index.js';
import { AckFaults } from '../faults/index.js';
import { Handshakes } from '../handshake/index.js';
import type { ClientSocket } from '../sockets/index.js';
import { Protocol1Writes, type Protocol1Writer } from './protocol1-writes.js';
import type { Outcome } from './workspace.js';

/** The socket events of protocol 1. */
@WebSocketGateway()
@UseFilters(AckFaults)
export class FilesGateway {
  constructor(
    private readonly handshakes: Handshakes,
    private readonly writes: Protocol1Writes,
  ) {}

  @SubscribeMessage(CLIENT_EVENTS.created)
  async created(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack> {
    const writer = await this.writer(socket);
    const outcome = await this.writes.put(writer, parsePayload(CreatedFile, payload).path, '', 'keep');
    // The hash of what was there is for those alone who may read it.
    const isTold = outcome.changes.length > 0 || writer.key.permissions.includes('read');
    return isTold ? withHash(outcome) : { success: true, seq: outcome.seq };
  }

  @SubscribeMessage(CLIENT_EVENTS.modified)
  async modified(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack> {
    const writer = await this.writer(socket);
    const { path, content } = parsePayload(ModifiedFile, payload);
    return withHash(await this.writes.put(writer, path, content, 'overwrite'));
  }

  @SubscribeMessage(CLIENT_EVENTS.deleted)
  async deleted(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack> {
    const writer = await this.writer(socket);
    const { seq } = await this.writes.delete(writer, parsePayload(DeletedFile, payload).path);
    return { success: true, seq };
  }

  @SubscribeMessage(CLIENT_EVENTS.renamed)
  async renamed(@ConnectedSocket() socket: ClientSocket, @MessageBody() payload: unknown): Promise<Ack> {
    const writer = await this.writer(socket);
    const { oldPath, newPath } = parsePayload(RenamedFile, payload);
    const { seq } = await this.writes.rename(writer, oldPath, newPath);
    return { success: true, seq };
  }

  /** The permission is decided anew for every event, before the payload is looked at. */
  private async writer(socket: ClientSocket): Promise<Protocol1Writer> {
    const key = await this.handshakes.keyOf(socket);
    requirePermission(key, 'write');
    return { key, sender: socket.id };
  }
}

function withHash({ seq, file }: Outcome): Ack {
  const hash = file?.carried?.hash;
  return hash === undefined ? { success: true, seq } : { success: true, hash, seq };
}
