import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import type { DefaultEventsMap, Server, Socket } from 'socket.io';
import { type Gauge, Metrics } from '@atomo-cc/platform/telemetry';
import type { Broadcast } from '@atomo-cc/sync-protocol';
import type { StoreKey } from '../credentials/index.js';
import { Relay, RELAY_LIMIT } from './relay.js';

/** A connected client; `data.key` is the key of its handshake. */
export type ClientSocket = Socket<DefaultEventsMap, DefaultEventsMap, DefaultEventsMap, { key: StoreKey }>;
/** The Socket.IO server. */
export type ClientServer = Server<DefaultEventsMap, DefaultEventsMap, DefaultEventsMap, { key: StoreKey }>;

/** Tells the other nodes of a change whose content is too long for Redis: they read it themselves. */
export interface LongChange {
  readonly tenantId: string;
  readonly storeId: string;
  readonly event: Exclude<Broadcast['event'], 'file-deleted'>;
  readonly path: string;
  readonly oldPath?: string;
  readonly seq: number;
}

/** The event between nodes that carries a LongChange. */
export const LONG_CHANGE = 'long-change';

/** Which sockets hear what. Broadcasts are hints: the store's change log is the truth. */
@Injectable()
export class Rooms {
  private server: ClientServer | undefined;
  /** Marks this node's sockets, so that what was delivered here already goes to the other nodes only. */
  private readonly node = randomUUID();
  private readonly opened: Gauge;

  constructor(
    private readonly relay: Relay,
    metrics: Metrics,
  ) {
    this.opened = metrics.gauge('sync_sockets', 'Open sockets of this node.');
  }

  /** Takes the server; once, before the first socket. */
  open(server: ClientServer): void {
    this.server = server;
  }

  /** Puts a socket where it belongs. Without read permission it hears nothing. */
  join(socket: ClientSocket): void {
    this.opened.inc();
    socket.once('disconnect', () => this.opened.dec());
    const { storeId, permissions } = socket.data.key;
    if (permissions.includes('read')) void socket.join([roomOf(storeId), this.roomHere(storeId)]);
  }

  /** Tells all readers of the store but `sender`, on this node at once, on the others through Redis. */
  announce(key: Pick<StoreKey, 'tenantId' | 'storeId'>, broadcast: Broadcast, sender?: string): void {
    this.announceHere(key.storeId, broadcast, sender);
    const { event, payload } = broadcast;
    const size = 'content' in payload ? payload.content.length : 0;
    if (event !== 'file-deleted' && size > RELAY_LIMIT) {
      const path =
        event === 'file-renamed' ? { path: payload.newPath, oldPath: payload.oldPath } : { path: payload.path };
      const change: LongChange = { ...key, event, ...path, seq: payload.seq };
      // Goes by publish/subscribe, which keeps nothing for later; waiting would be in vain.
      if (this.relay.isConnected) this.server?.serverSideEmit(LONG_CHANGE, change);
    } else if (this.relay.takes(size)) {
      this.server?.to(roomOf(key.storeId)).except(this.roomHere(key.storeId)).emit(event, payload);
    }
  }

  /** Tells the readers on this node only. */
  announceHere(storeId: string, { event, payload }: Broadcast, sender?: string): void {
    const readers = this.server?.local.to(roomOf(storeId));
    (sender === undefined ? readers : readers?.except(sender))?.emit(event, payload);
  }

  /** Whether anybody on this node reads the store. */
  hasReaders(storeId: string): boolean {
    return this.server?.of('/').adapter.rooms.has(roomOf(storeId)) ?? false;
  }

  /** The open sockets of this node. */
  sockets(): ClientSocket[] {
    return this.server ? ([...this.server.of('/').sockets.values()] as ClientSocket[]) : [];
  }

  /** Ends the sockets of this node whose key `isEnded`. */
  disconnect(isEnded: (key: StoreKey) => boolean): void {
    for (const socket of this.sockets()) if (isEnded(socket.data.key)) socket.disconnect(true);
  }

  private roomHere(storeId: string): string {
    return `${roomOf(storeId)}@${this.node}`;
  }
}

function roomOf(storeId: string): string {
  return `store:${storeId}`;
}
