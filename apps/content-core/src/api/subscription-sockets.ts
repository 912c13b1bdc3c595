import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import type { ExecutionArgs } from 'graphql';
import { CloseCode, type Context } from 'graphql-ws';
import { useServer, type Extra } from 'graphql-ws/use/ws';
import { WebSocket, WebSocketServer } from 'ws';
import type { Principal } from '@atomo-cc/access';
import { uuidv7 } from '@atomo-cc/kernel';
import { callerAddress } from '@atomo-cc/platform/config';
import type { DocumentCache } from './document-cache.js';
import type { FormatError } from './error-format.js';
import { asRefusal, carryOut, tellDenials, type ApiServerOptions } from './operations.js';
import type { ApiContext } from './part.js';
import type { Connection, Subscribers } from './subscribers.js';
import type { TrustedDocuments } from './trusted-documents.js';

/** A subscriber that does not say who it is within this time is cut. */
const CONNECTION_INIT_MS = 10_000;
/** The largest message a subscriber may send: a document and its variables. */
const MAX_MESSAGE_BYTES = 1024 * 1024;

/** Serves operations by graphql-ws, subscriptions above all. Returns what closes the open sockets. */
export function serveSockets(
  server: Server,
  options: ApiServerOptions,
  {
    trusted,
    documents,
    subscribers,
    formatError,
  }: { trusted: TrustedDocuments; documents: DocumentCache; subscribers: Subscribers; formatError: FormatError },
): { close(): Promise<void> } {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_MESSAGE_BYTES });
  const contextOf = ({ principal, request }: SocketFacts): ApiContext => {
    const address = callerAddress(request, options.isTrustedProxy ?? (() => false));
    return { principal: principal!, requestId: uuidv7(), ...(address !== undefined && { address }) };
  };
  const disposable = useServer<Record<string, unknown>, SocketFacts>(
    {
      // Or the reason of an internal error would be told to the subscriber when its socket is closed.
      isProd: true,
      connectionInitWaitTimeout: CONNECTION_INIT_MS,
      onConnect: async (context) => {
        try {
          const authorization = authorizationOf(context.connectionParams);
          context.extra.principal = await options.authenticate(authorization);
          const { role } = context.extra.principal;
          context.extra.connection = { authorization, role, end: () => endSocket(context) };
          if (context.extra.socket.readyState === WebSocket.OPEN) subscribers.watch(context.extra.connection);
          return true;
        } catch {
          return false;
        }
      },
      onClose: ({ extra }) => {
        if (extra.connection) subscribers.forget(extra.connection);
      },
      context: ({ extra, connectionParams }, _id, payload): ApiContext => {
        // Of the operation where it says so, else of the connection, which lives through many.
        const traceparent = payload.extensions?.['traceparent'] ?? connectionParams?.['traceparent'];
        return { ...contextOf(extra), ...(typeof traceparent === 'string' && { traceparent }) };
      },
      onSubscribe: async (context, _id, payload) => {
        try {
          // A socket lives longer than a token: who has logged out meanwhile begins nothing new.
          context.extra.principal = await (options.admit ?? options.authenticate)(
            authorizationOf(context.connectionParams),
          );
          // The protocol demands a query: who names a document leaves it empty.
          const text = trusted.named(payload) ?? payload.query;
          trusted.require(text, context.extra.principal.role);
          const document = documents.parse(text);
          const schema = options.schemas.of(context.extra.principal.role);
          const errors = documents.validate(schema, document);
          if (errors.length > 0) {
            tellDenials(options, contextOf(context.extra), errors);
            return errors;
          }
          return {
            schema,
            document,
            operationName: payload.operationName ?? null,
            variableValues: payload.variables ?? {},
          };
        } catch (error) {
          if (context.extra.principal) tellDenials(options, contextOf(context.extra), [asRefusal(error as Error)]);
          return [formatError(error as Error)];
        }
      },
      execute: ((args: ExecutionArgs) => carryOut(options, args, (own) => documents.execute(own))) as never,
      // The span is that of the begin: what a subscription sends belongs to the traces of those who caused it.
      subscribe: ((args: ExecutionArgs) => carryOut(options, args, (own) => subscribers.follow(own))) as never,
      onError: (_context, _id, _payload, errors) => errors.map((error) => formatError(error).toJSON()),
      onNext: (_context, _id, _payload, args, result) => {
        if (!result.errors) return undefined;
        const { requestId } = args.contextValue as ApiContext;
        return {
          data: result.data ?? null,
          errors: result.errors.map((error) => formatError(error, requestId).toJSON()),
        };
      },
    },
    sockets,
  );
  // graphql-ws takes what a client sends wrongly, too long or no text, for a fault of ours and prints it with its stack; by then ws
  // has shut the socket, with the protocol's code for it.
  sockets.on('connection', (socket) => {
    socket.removeAllListeners('error');
    socket.on('error', () => undefined);
  });
  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    // Cut, not parsed: what a client sends need not be a URL, and an error here would end the process.
    if (request.url?.split('?', 1)[0] !== '/graphql') {
      socket.destroy();
      return;
    }
    sockets.handleUpgrade(request, socket, head, (opened) => sockets.emit('connection', opened, request));
  };
  server.on('upgrade', upgrade);
  return {
    close: async () => {
      server.off('upgrade', upgrade);
      await disposable.dispose();
    },
  };
}

/** What is known of a socket beside what its protocol needs. */
type SocketFacts = {
  /** Of the newest operation; absent until the socket has said who it is. */
  principal?: Principal;
  connection?: Connection;
  request: IncomingMessage;
};

function endSocket({ extra, subscriptions }: Context<Record<string, unknown>, Extra & SocketFacts>): void {
  extra.socket.close(CloseCode.Forbidden, 'Forbidden');
  // Nothing is sent any more. One who does not answer the close would otherwise keep them until the socket is cut.
  for (const followed of Object.values(subscriptions)) {
    if (followed && 'return' in followed) void followed.return(undefined).catch(() => undefined);
  }
}

function authorizationOf(parameters: Readonly<Record<string, unknown>> | undefined): string | undefined {
  const given = parameters?.['authorization'] ?? parameters?.['Authorization'];
  return typeof given === 'string' ? given : undefined;
}
