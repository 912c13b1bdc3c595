import { type BeforeApplicationShutdown, Inject } from '@nestjs/common';
import { type OnGatewayConnection, type OnGatewayInit, WebSocketGateway } from '@nestjs/websockets';
import { isCodedError } from '@atomo-cc/kernel';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { SERVER_EVENTS_2 } from '@atomo-cc/sync-protocol';
import { Feeds } from '../feeds/index.js';
import { FileWrites } from '../files/index.js';
import { Handshakes } from '../handshake/index.js';
import { Sync } from '../protocol2/index.js';
import { Clients, type ClientServer, type ClientSocket } from '../sockets/index.js';

/** Sockets of both protocols, from their handshake to their end. */
@WebSocketGateway()
export class ConnectionsGateway
  implements OnGatewayInit<ClientServer>, OnGatewayConnection<ClientSocket>, BeforeApplicationShutdown
{
  constructor(
    private readonly clients: Clients,
    private readonly handshakes: Handshakes,
    private readonly feeds: Feeds,
    private readonly writes: FileWrites,
    private readonly sync: Sync,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  afterInit(server: ClientServer): void {
    this.clients.open(server);
    // Nest's guards do not run for connections, and an error thrown there ends the process: the handshake is a middleware.
    server.use(async (socket, next) => next(await this.handshakes.shake(socket)));
    this.clients.onHint((storeId, seq) => this.feeds.hinted(storeId, seq));
  }

  /** Errors must not leave here: nobody would catch them. */
  handleConnection(socket: ClientSocket): void {
    this.clients.count(socket);
    void this.welcome(socket).catch((error: unknown) => {
      if (!isCodedError(error)) this.logger.error({ err: error }, 'a connection could not be served');
      // The client comes back, with a pause.
      socket.disconnect(true);
    });
  }

  /** Sockets would keep the HTTP server open; clients come back to another node. What was accepted is acked before. */
  async beforeApplicationShutdown(): Promise<void> {
    await this.writes.drain();
    // Lets Nest hand the answers to the sockets, which send what they hold before they close.
    await new Promise((resolve) => setImmediate(resolve));
    this.clients.disconnect(() => true);
  }

  /** Without read permission a socket hears nothing but `ready`. */
  private async welcome(socket: ClientSocket): Promise<void> {
    const { key, protocol, cursor } = socket.data;
    const canRead = key.permissions.includes('read');
    if (protocol === 1) {
      if (canRead) (await this.feeds.open(key)).add(socket);
      return;
    }
    const ready = await this.sync.ready(key);
    socket.emit(SERVER_EVENTS_2.ready, ready);
    if (!canRead) return;
    if (key.prefixes.length === 0) this.watchPresence(socket);
    const feed = await this.feeds.open(key);
    // A cursor of another epoch or from before the log is noticed by whoever reads from it.
    feed.follow(socket, cursor ?? { epoch: ready.epoch, from: ready.head! });
  }

  private watchPresence(socket: ClientSocket): void {
    this.clients.watchPresence(socket);
    socket.once('disconnecting', () => {
      const shown = socket.data.presence;
      if (shown) this.clients.showPresence(socket, { ...shown, state: null });
    });
  }
}
