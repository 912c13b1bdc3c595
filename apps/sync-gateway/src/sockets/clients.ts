import { Injectable } from '@nestjs/common';
import type { DefaultEventsMap, Server, Socket } from 'socket.io';
import { type Gauge, Metrics } from '@atomo-cc/platform/telemetry';
import type { Device, Presence } from '@atomo-cc/sync-protocol';
import type { StoreKey } from '../credentials/index.js';
import { Relay } from './relay.js';

/** What is known of a connected client. */
export interface ClientData {
  /** The key of its handshake. */
  key: StoreKey;
  protocol: 1 | 2;
  /** Protocol 2 only. */
  device: Device | null;
  /** Where the client said it stands. */
  cursor: { readonly epoch: string; readonly from: number } | null;
  presence: Presence | null;
}

/** A connected client. */
export type ClientSocket = Socket<DefaultEventsMap, DefaultEventsMap, DefaultEventsMap, ClientData>;
/** The Socket.IO server. */
export type ClientServer = Server<DefaultEventsMap, DefaultEventsMap, DefaultEventsMap, ClientData>;

/** Between nodes: a store has moved. */
const HEAD = 'store-head';

/** The sockets of this node, and the way to those of the others. */
@Injectable()
export class Clients {
  private server: ClientServer | undefined;
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

  /** Counts a socket while it is open. */
  count(socket: ClientSocket): void {
    this.opened.inc();
    socket.once('disconnect', () => this.opened.dec());
  }

  /** The open sockets of this node. */
  all(): ClientSocket[] {
    return this.server ? ([...this.server.of('/').sockets.values()] as ClientSocket[]) : [];
  }

  /** Sends to sockets of this node; the event is encoded once. */
  emit(ids: string[], event: string, payload: unknown): void {
    // Without a room Socket.IO would send it to everybody.
    if (ids.length > 0) this.server?.local.to(ids).emit(event, payload);
  }

  /** Tells the other nodes that a store has moved. While Redis is away nothing is sent: they look for themselves. */
  hint(storeId: string, seq: number): void {
    if (this.relay.isConnected) this.server?.serverSideEmit(HEAD, storeId, seq);
  }

  /** Hears what the other nodes tell. */
  onHint(listener: (storeId: string, seq: number) => void): void {
    this.server?.on(HEAD as never, listener as never);
  }

  /** Shows a device to the others of its store that may see presence, on all nodes. */
  showPresence(socket: ClientSocket, presence: Presence): void {
    socket.data.presence = presence.state === null ? null : presence;
    this.server?.to(presenceRoom(socket.data.key.storeId)).except(socket.id).volatile.emit('presence', presence);
  }

  /** Lets the socket see the presence of others. */
  watchPresence(socket: ClientSocket): void {
    void socket.join(presenceRoom(socket.data.key.storeId));
  }

  /** The devices that show themselves; of this node alone while the others do not answer. */
  async present(storeId: string): Promise<Presence[]> {
    const room = this.server?.in(presenceRoom(storeId));
    const sockets = this.relay.isConnected ? await room?.fetchSockets().catch(() => undefined) : undefined;
    const here = this.all().filter((socket) => socket.data.key.storeId === storeId);
    return (sockets ?? here).flatMap(({ data }) => (data.presence ? [data.presence] : []));
  }

  /** Ends the sockets of this node whose key `isEnded`. */
  disconnect(isEnded: (key: StoreKey) => boolean): void {
    for (const socket of this.all()) if (isEnded(socket.data.key)) socket.disconnect(true);
  }

  /** Tells the sockets why their key ended, as protocol 2 does, and ends them. */
  revoke(isEnded: (key: StoreKey) => boolean): void {
    for (const socket of this.all()) {
      if (!isEnded(socket.data.key)) continue;
      const { expiresAt } = socket.data.key;
      const code = expiresAt !== null && expiresAt <= Date.now() ? 'KEY_EXPIRED' : 'KEY_REVOKED';
      if (socket.data.protocol === 2) socket.emit('revoked', { code });
      socket.disconnect(true);
    }
  }
}

function presenceRoom(storeId: string): string {
  return `presence:${storeId}`;
}

/** Bytes that were handed to a socket and have not left this process. */
export function pendingBytes(socket: ClientSocket): number {
  const { writeBuffer, transport } = socket.conn as unknown as {
    writeBuffer: readonly { data?: string | Buffer }[];
    transport: { socket?: { bufferedAmount?: number } };
  };
  const waiting = writeBuffer.reduce((sum, { data }) => sum + (data?.length ?? 0), 0);
  return waiting + (transport.socket?.bufferedAmount ?? 0);
}
