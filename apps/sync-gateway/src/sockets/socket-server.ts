import type { INestApplicationContext } from '@nestjs/common';
import { IoAdapter } from '@nestjs/platform-socket.io';
import type { Server, ServerOptions, Socket } from 'socket.io';
import { FRAME_LIMIT_BYTES } from '@atomo-cc/sync-protocol';
import type { Relay } from './relay.js';

/** How long a connection may stay without its handshake: it costs memory and is nobody yet. */
const HANDSHAKE_TIMEOUT_MS = 10_000;

/** The largest frame of a connection that has not shown a key: its handshake, with room for the longest device and cursor. */
const STRANGERS_FRAME_BYTES = 64 * 1024;
/** Connections that have not shown a key yet, over all addresses. Each costs some 20 KB, and goes by itself after 10 s. */
const STRANGERS = 2_000;

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
    watchStrangers(server);
    return server;
  }
}

/** The part of a WebSocket of `ws` that bounds what it reads; it has no public name for a change after the start. */
interface Bounded {
  readonly _receiver?: { _maxPayload?: number };
}

/** Keeps connections small, and few, until their handshake is over. */
function watchStrangers(server: Server): void {
  const strangers = new Set<object>();
  server.engine.on('connection', (connection: Socket['conn']) => {
    if (strangers.size >= STRANGERS) {
      connection.close(true);
      return;
    }
    strangers.add(connection);
    connection.once('close', () => strangers.delete(connection));
    limitFrames(connection, STRANGERS_FRAME_BYTES);
  });
  server.on('connection', ({ conn }) => {
    strangers.delete(conn);
    limitFrames(conn, FRAME_LIMIT_BYTES);
  });
}

function limitFrames({ transport }: Socket['conn'], bytes: number): void {
  const receiver = (transport as unknown as { socket?: Bounded }).socket?._receiver;
  if (receiver) receiver._maxPayload = bytes;
}
