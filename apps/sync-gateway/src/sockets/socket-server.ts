import type { Writable } from 'node:stream';
import type { INestApplicationContext, WsMessageHandler } from '@nestjs/common';
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

  /** Without the pipelines of RxJS that Nest keeps for each event of each socket: they are most of what an idle one takes. */
  override bindMessageHandlers(socket: Socket, handlers: readonly WsMessageHandler[]): void {
    for (const { message, callback } of handlers) {
      socket.on(message, (...sent: unknown[]) => {
        // Nobody else would catch it, and it must not end the process.
        answer(callback, sent).catch((error: unknown) => this.logger.error(error));
      });
    }
  }
}

/** Runs a handler, whose faults the filter has answered, and sends what it returns as the ack. */
async function answer(handle: WsMessageHandler['callback'], sent: unknown[]): Promise<void> {
  const ack = typeof sent.at(-1) === 'function' ? (sent.pop() as (answer: unknown) => void) : undefined;
  const answered: unknown = await handle(sent.length > 1 ? sent : sent[0], ack);
  if (answered !== undefined) ack?.(answered);
}

/** The parts of a WebSocket of `ws` that have no public name: what bounds the frames it reads, and the line below it. */
interface Insides {
  readonly _receiver?: { _maxPayload?: number };
  readonly _socket?: Writable;
}

function insidesOf({ transport }: Socket['conn']): Insides | undefined {
  return (transport as unknown as { socket?: Insides }).socket;
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
    sendTogether(connection);
  });
  server.on('connection', ({ conn }) => {
    strangers.delete(conn);
    limitFrames(conn, FRAME_LIMIT_BYTES);
  });
}

function limitFrames(connection: Socket['conn'], bytes: number): void {
  const receiver = insidesOf(connection)?._receiver;
  if (receiver) receiver._maxPayload = bytes;
}

/**
 * Hands the frames that wait for a socket to the system in one call: the answers and the news of one commit come together, and a
 * call for each is the largest part of what they cost.
 */
function sendTogether(connection: Socket['conn']): void {
  const { transport } = connection;
  const line = insidesOf(connection)?._socket;
  if (!line) return;
  const send = transport.send.bind(transport);
  transport.send = (packets) => {
    line.cork();
    send(packets);
    line.uncork();
  };
}
