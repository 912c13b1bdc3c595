import type { INestApplicationContext } from '@nestjs/common';
import { IoAdapter } from '@nestjs/platform-socket.io';
import type { Server, ServerOptions } from 'socket.io';
import { FRAME_LIMIT_BYTES } from '@atomo-cc/sync-protocol';
import type { Relay } from './relay.js';

/** How long a connection may stay without its handshake: it costs memory and is nobody yet. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** Makes the Socket.IO server of the gateway. */
export class SocketServer extends IoAdapter {
  constructor(
    app: INestApplicationContext,
    private readonly relay: Relay,
  ) {
    super(app);
  }

  override createIOServer(port: number, options?: ServerOptions): Server {
    const server: Server = super.createIOServer(port, {
      ...options,
      // Long polling would need sticky sessions in front of several nodes.
      transports: ['websocket'],
      // Above it the connection is cut without an ack, so it lies above the documented maximum of a content.
      maxHttpBufferSize: FRAME_LIMIT_BYTES,
      connectTimeout: HANDSHAKE_TIMEOUT_MS,
      serveClient: false,
      // Compressing costs each connection some 300 KB and has a history of memory fragmentation.
      perMessageDeflate: false,
    } as unknown as ServerOptions);
    server.adapter(this.relay.adapter());
    return server;
  }
}
