import { createHash } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import {
  GraphQLError,
  getOperationAST,
  getVariableValues,
  Kind,
  NoSchemaIntrospectionCustomRule,
  OperationTypeNode,
  specifiedRules,
  validate,
  visit,
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  type GraphQLErrorOptions,
  type GraphQLSchema,
} from 'graphql';
import { compileQuery, isCompiledQuery, type CompiledQuery } from 'graphql-jit';
import { createHandler, parseRequestParams, type Request, type RequestParams, type Response } from 'graphql-http';
import { CloseCode, type Context } from 'graphql-ws';
import { useServer, type Extra } from 'graphql-ws/use/ws';
import { WebSocket, WebSocketServer } from 'ws';
import { renderGraphiQL } from '@graphql-yoga/render-graphiql';
import { apiError, API_ERRORS, isCodedError, uuidv7, type CodedError } from '@atomo-cc/kernel';
import { requireScope, type Origin, type Principal } from '@atomo-cc/access';
import { callerAddress, type IsTrusted } from '@atomo-cc/platform/config';
import { isTooDeep } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { currentTraceparent, isTracing, withSpan } from '@atomo-cc/platform/telemetry';
import { brokenLimit, MAX_DEPTH, readDocument, tooDeepVariable, UnconditionalSubscription } from './document-limits.js';
import { eventStreamIn, sendEventStream, type EventStream } from './event-stream.js';
import { DataText, DirectOperation } from './direct-answer.js';
import type { ApiContext } from './part.js';
import { lackingIn, type RoleSchemas } from './role-schemas.js';
import { JsonScalar } from './scalars.js';
import { Subscribers, type Authenticate, type Connection, type Followed } from './subscribers.js';
import { TrustedDocuments } from './trusted-documents.js';

/** Documents that are kept parsed, checked and compiled. An application has a few hundred; ten thousand random ones cannot fill the memory. */
const CACHED_DOCUMENTS = 1_000;
/** Faults of variables that one answer lists. */
const MAX_VARIABLE_ERRORS = 20;
/** A subscriber that does not say who it is within this time is cut. */
const CONNECTION_INIT_MS = 10_000;
/** The largest message a subscriber may send: a document and its variables. */
const MAX_MESSAGE_BYTES = 1024 * 1024;
/** Characters of an operation's name in the name of its span; the name is the caller's, and may be of any length. */
const MAX_SPAN_NAME = 100;

/** What the GraphQL endpoint needs to know of the rest. */
export interface ApiServerOptions {
  /** Each caller is served by the schema of their role. */
  readonly schemas: RoleSchemas;
  /**
   * Turns an Authorization header into who is calling. @throws CodedError UNAUTHENTICATED
   * @param believedMs how old what is known of the session may be; for itself to say unless given
   */
  readonly authenticate: Authenticate;
  /** The same for each operation, which counts against the limits of the caller's tenant; `authenticate` unless given. */
  readonly admit?: (authorization: string | undefined) => Promise<Principal>;
  readonly logger: Logger;
  /** Told of each field or operation that was forbidden. */
  readonly onDenied?: (principal: Principal, operation: string, from: Origin) => void;
  /** Whether callers may look at the schema, and browsers get GraphiQL; so unless it is false. Names are then not suggested either. */
  readonly introspection?: boolean;
  /** Documents that may be named instead of written; none unless given. */
  readonly trusted?: TrustedDocuments;
  /** Whose word on the addresses of callers counts; nobody's unless given. */
  readonly isTrustedProxy?: IsTrusted;
}

/**
 * Serves GraphQL at /graphql: POST by the GraphQL-over-HTTP specification, subscriptions on the same path by graphql-ws and,
 * for who accepts text/event-stream, by GraphQL over Server-Sent Events, and GraphiQL for a browser's GET. Returns what
 * closes the open connections.
 */
export function serveApi(fastify: FastifyInstance, options: ApiServerOptions): { close(): Promise<void> } {
  const isOpen = options.introspection ?? true;
  const trusted = options.trusted ?? TrustedDocuments.NONE;
  const documents = new DocumentCache(isOpen, trusted);
  const formatError = errorFormatter(options.logger);
  const subscribers = new Subscribers(options.authenticate);
  const streams = new Set<EventStream>();

  const bodyOf = (result: ExecutionResult, requestId: string): string => {
    if (!result.errors) return `{"data":${result instanceof DataText ? result.text : JSON.stringify(result.data)}}`;
    return JSON.stringify({ ...result, errors: result.errors.map((error) => formatError(error, requestId)) });
  };

  const handle = createHandler<FastifyRequest, unknown, Record<string, unknown>>({
    schema: (request) => options.schemas.of(request.raw.apiContext!.principal.role),
    parseRequestParams: (request) =>
      paramsOf(trusted, request).catch((error: Error) => {
        tellDenials(options, request.raw.apiContext!, [asRefusal(error)]);
        throw error;
      }),
    onSubscribe: ({ raw: { apiContext } }, { query }) => {
      const { principal } = apiContext!;
      // What is refused before anything is carried out; the handler comes to the same by itself.
      tellDenials(options, apiContext!, documents.faultsOf(options.schemas.of(principal.role), query));
    },
    parse: (source) => documents.parse(typeof source === 'string' ? source : source.body),
    validate: (schema, document) => documents.validate(schema, document),
    execute: (args: ExecutionArgs) => carryOut(options, args, (own) => documents.answer(own)),
    context: (request) => request.raw.apiContext as unknown as Record<string, unknown>,
    onOperation: (request, _args, result) => {
      const headers = { 'content-type': `${mediaTypeOf(request.raw.headers.accept)}; charset=utf-8` };
      return [bodyOf(result, request.raw.id), { status: 200, statusText: 'OK', headers }];
    },
    formatError: (error) => formatError(error),
  });

  /** The handler's answer to what most requests are, at half its cost; null for what it has to judge: all that is refused. */
  const answerPlain = async ({ body }: FastifyRequest, context: ApiContext): Promise<string | null> => {
    if (!isPlain(body)) return null;
    const { query, operationName, variables } = body;
    if (!trusted.admits(query, context.principal.role)) return null;
    const schema = options.schemas.of(context.principal.role);
    const document = documents.soundOf(schema, query);
    if (!document) return null;
    const type = getOperationAST(document, operationName)?.operation;
    if (type !== OperationTypeNode.QUERY && type !== OperationTypeNode.MUTATION) return null;
    const args: ExecutionArgs = {
      schema,
      document,
      operationName: operationName ?? null,
      variableValues: variables ?? {},
      contextValue: context,
    };
    return bodyOf(await carryOut(options, args, (own) => documents.answer(own)), context.requestId);
  };

  const answer = async (request: FastifyRequest, reply: FastifyReply) => {
    try {
      const principal = await (options.admit ?? options.authenticate)(request.headers.authorization);
      const { traceparent } = request.headers;
      request.apiContext = {
        principal,
        requestId: request.id,
        address: request.ip,
        ...(typeof traceparent === 'string' && { traceparent }),
      };
    } catch (error) {
      const refused = formatError(error as Error, request.id);
      const { code, retryAfterSeconds } = refused.extensions;
      if (code === 'RATE_LIMITED') void reply.header('retry-after', retryAfterSeconds);
      const status = code === 'RATE_LIMITED' ? 429 : isCodedError(error) ? 401 : 500;
      return reply.status(status).send({ errors: [refused] });
    }
    if (isPlainJson(request)) {
      const body = await answerPlain(request, request.apiContext);
      if (body !== null) return reply.type('application/json; charset=utf-8').send(body);
    }
    const accepted = eventStreamIn(request.headers.accept);
    if (accepted !== 'no' && (await answerByStream(request, reply, accepted))) return reply;
    const [body, init] = await handle(toHandle(request, accepted === 'wanted'));
    reply.status(init.status).headers(init.headers ?? {});
    // What refuses the method itself has no code.
    if (init.status !== 405 && (body !== null || init.status < 400)) return reply.send(body ?? '');
    return reply.send({ errors: [formatError(refusedRequest(init.status, request, init.statusText))] });
  };

  /** Answers by server-sent events what is to be answered so; false for all else, also what is no operation at all. */
  const answerByStream = async (request: FastifyRequest, reply: FastifyReply, accepted: 'wanted' | 'possible') => {
    const context = request.apiContext!;
    const asErrors = (error: unknown) => ({ errors: [formatError(error as Error, context.requestId)] });
    let results: Followed;
    try {
      const params = await paramsOf(trusted, toHandle(request)).catch((error: Error) => {
        if (isCodedError(error) && error.code === 'VALIDATION_ERROR') return null;
        if (accepted === 'wanted') tellDenials(options, context, [asRefusal(error)]);
        throw error;
      });
      if (params === null || !('query' in params)) return false;
      const document = documents.parse(params.query);
      const operation: string | undefined = getOperationAST(document, params.operationName)?.operation;
      if (operation === 'mutation' && request.method === 'GET') return false;
      if (accepted === 'possible' && operation !== 'subscription') return false;
      const schema = options.schemas.of(context.principal.role);
      const errors = documents.validate(schema, document);
      const args: ExecutionArgs = {
        schema,
        document,
        operationName: params.operationName ?? null,
        variableValues: params.variables ?? {},
        contextValue: context,
      };
      tellDenials(options, context, errors);
      if (errors.length > 0) results = { errors };
      else if (!operation) results = asErrors(apiError('VALIDATION_ERROR', 'operationName names no operation of it.'));
      else if (operation === 'subscription') results = await carryOut(options, args, (own) => subscribers.follow(own));
      else results = await carryOut(options, args, (own) => documents.execute(own));
    } catch (error) {
      if (accepted === 'possible') return false;
      results = asErrors(error);
    }
    const connection: Connection = {
      authorization: request.headers.authorization,
      role: context.principal.role,
      end: () => stream.end(asErrors(apiError('UNAUTHENTICATED', 'The session has ended. Log in again.'))),
    };
    const formatted = (result: ExecutionResult) =>
      result.errors
        ? { ...result, errors: result.errors.map((error) => formatError(error, context.requestId)) }
        : result;
    const stream = sendEventStream(reply, results, { formatted, failed: asErrors }, () => {
      subscribers.forget(connection);
      streams.delete(stream);
    });
    streams.add(stream);
    subscribers.watch(connection);
    return true;
  };

  fastify.decorateRequest('apiContext');
  // Of what never gets to an operation, such as a body that cannot be read.
  const errorHandler = (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => {
    const status = isTooDeep(error) ? 400 : (error.statusCode ?? 500);
    const told = status < 500 ? refusedRequest(status, request, error.message) : error;
    void reply.status(status).send({ errors: [formatError(told, request.id)] });
  };
  fastify.post('/graphql', { errorHandler }, answer);
  fastify.get('/graphql', (request, reply) => {
    if (!isOpen || !request.headers.accept?.includes('text/html')) return answer(request, reply);
    const { page, policy } = graphiql();
    return reply.type('text/html').header('content-security-policy', policy).send(page);
  });
  const sockets = serveSockets(fastify.server, options, { trusted, documents, subscribers, formatError });
  return {
    close: async () => {
      subscribers.close();
      for (const stream of streams) stream.cut();
      await sockets.close();
    },
  };
}

/**
 * What a request asks to be carried out, with the text of the document that it may have named instead.
 * @throws CodedError VALIDATION_ERROR for what is no request, and as `TrustedDocuments` says
 */
async function paramsOf(
  trusted: TrustedDocuments,
  request: Request<FastifyRequest, unknown>,
): Promise<RequestParams | Response> {
  const params = await parseRequestParams(withNamedDocument(trusted, request)).catch((error: Error) => {
    // What it throws says what the caller has left out or written wrongly, by no code.
    throw isCodedError(error) ? error : apiError('VALIDATION_ERROR', `The request is no GraphQL: ${error.message}.`);
  });
  if ('query' in params) trusted.require(params.query, request.raw.apiContext!.principal.role);
  return params;
}

/** The request as if the document that it names were written in it. */
function withNamedDocument<Of>(trusted: TrustedDocuments, request: Request<Of, unknown>): Request<Of, unknown> {
  if (request.method === 'GET') {
    const [path, search] = request.url.split('?');
    const parameters = new URLSearchParams(search);
    const text = trusted.named({
      query: parameters.get('query') ?? undefined,
      documentId: parameters.get('documentId') ?? undefined,
      extensions: jsonIn(parameters.get('extensions')),
    });
    if (text === undefined) return request;
    parameters.set('query', text);
    return { ...request, url: `${path}?${parameters}` };
  }
  const body: unknown = request.body;
  if (typeof body !== 'object' || body === null) return request;
  const text = trusted.named(body);
  return text === undefined ? request : { ...request, body: { ...body, query: text } };
}

/** What is no JSON is told by who reads the request. */
function jsonIn(text: string | null): unknown {
  try {
    return text === null ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Whether JSON is posted by one who takes JSON, as most clients say it. */
function isPlainJson({ method, headers }: FastifyRequest): boolean {
  return (
    method === 'POST' &&
    headers['content-type'] === 'application/json' &&
    (headers.accept === undefined || headers.accept === '*/*' || headers.accept === 'application/json')
  );
}

/** What a body has that is a request of GraphQL in every part. */
interface PlainBody {
  readonly query: string;
  readonly operationName?: string | null;
  readonly variables?: Record<string, unknown> | null;
}

/** One that names its document, in whichever way, is left to those who know them. */
function isPlain(body: unknown): body is PlainBody {
  if (!isObject(body)) return false;
  const { query, operationName = null, variables = null, extensions = null, documentId = null } = body;
  return (
    typeof query === 'string' &&
    (operationName === null || typeof operationName === 'string') &&
    (variables === null || isObject(variables)) &&
    extensions === null &&
    documentId === null
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @param isJson whether JSON is answered whatever was asked for: to one who wanted a stream, of what no stream can be made */
function toHandle(request: FastifyRequest, isJson = false): Request<FastifyRequest, unknown> {
  return {
    url: request.url,
    method: request.method,
    headers: isJson ? { ...request.headers, accept: 'application/json' } : request.headers,
    body: request.body as string | Record<string, unknown> | null,
    raw: request,
    context: undefined,
  };
}

/** What an answer is written as, of what is accepted: as the handler reads the header, which has found something there. */
function mediaTypeOf(accept = '*/*'): 'application/json' | 'application/graphql-response+json' {
  for (const entry of accept.replaceAll(/\s/g, '').toLowerCase().split(',')) {
    const [type, ...parameters] = entry.split(';');
    const charset = parameters.find((parameter) => parameter.includes('charset=')) ?? 'charset=utf-8';
    if (type === 'application/graphql-response+json' && charset === 'charset=utf-8') return type;
    if (type === 'application/json' || type === 'application/*' || type === '*/*') {
      if (charset === 'charset=utf-8' || charset === 'charset=utf8') return 'application/json';
    }
  }
  return 'application/json';
}

/** What is wrong with a request that no operation was found in. */
function refusedRequest(status: number, request: FastifyRequest, message: string): CodedError {
  const said: Readonly<Record<number, string>> = {
    405: 'Mutations are sent by POST.',
    406: 'The answer is JSON: accept application/graphql-response+json or application/json.',
    413: `The body has more than ${request.routeOptions.bodyLimit} bytes. Send less in one request.`,
    415: 'The body is to be JSON, with content-type: application/json.',
  };
  return apiError(
    'VALIDATION_ERROR',
    said[status] ?? (isTooDeep({ name: 'RangeError', message }) ? NESTED_BODY : message),
  );
}

const NESTED_BODY = 'The body is nested too deeply.';

declare module 'fastify' {
  interface FastifyRequest {
    apiContext?: ApiContext;
  }
}

let graphiqlPage: { page: string; policy: string } | undefined;

/** The page, and what a browser may do for it: run its own scripts, which are in it, and talk to this server. */
function graphiql(): { page: string; policy: string } {
  if (graphiqlPage) return graphiqlPage;
  const page = renderGraphiQL({
    title: 'Atomo GraphiQL',
    endpoint: '/graphql',
    subscriptionsProtocol: 'WS',
    shouldPersistHeaders: true,
    headers: '{ "authorization": "Bearer PASTE-ACCESS-TOKEN" }',
    defaultQuery: `# Every request needs an access token in the tab "Headers" below.
# POST /auth/login with {"email": …, "password": …} answers one; \`npm start\` prints the login.
{
  memorySearch(input: { query: "what was decided", limit: 5 }) {
    hits { snippet record { subject sentAt } people { name role } }
  }
}
`,
  });
  const scripts = [...page.matchAll(/<script\b[^>]*>([\s\S]*?)<\/script>/g)].map(([, script]) => {
    const hash = createHash('sha256').update(script!).digest('base64');
    return `'sha256-${hash}'`;
  });
  const policy = [
    "default-src 'none'",
    `script-src ${scripts.join(' ')}`,
    // The editor colours its words, and works in the background, by what it makes itself.
    "style-src 'unsafe-inline'",
    'font-src data:',
    'img-src data:',
    'worker-src blob: data:',
    "connect-src 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'none'",
  ].join('; ');
  graphiqlPage = { page, policy };
  return graphiqlPage;
}

function serveSockets(
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

/**
 * Carries out an operation within a span of its own, which continues that of the request, or the caller's. It says of the
 * operation its type and name and of its errors the first one's code: no variable, no document, nobody's address.
 */
function inSpan<Result extends Followed>(
  args: ExecutionArgs,
  work: (args: ExecutionArgs) => Result | Promise<Result>,
): Result | Promise<Result> {
  if (!isTracing()) return work(args);
  const given = args.contextValue as ApiContext;
  const operation = getOperationAST(args.document, args.operationName);
  const type = operation?.operation ?? 'query';
  const name = operation?.name?.value.slice(0, MAX_SPAN_NAME);
  const attributes = {
    'graphql.operation.type': type,
    ...(name !== undefined && { 'graphql.operation.name': name }),
    'atomo.tenant': given.principal.tenantId,
  };
  return withSpan(
    name ? `${type} ${name}` : type,
    { parent: given.traceparent, attributes },
    async () => {
      const contextValue: ApiContext = { ...given, traceparent: currentTraceparent() };
      return work({ ...args, contextValue });
    },
    (result) => ('errors' in result ? (result.errors?.[0]?.originalError ?? result.errors?.[0]) : undefined),
  );
}

/** Carries out an operation that the caller's token was made for: the one way to it, over whatever transport. */
async function carryOut<Result extends Followed>(
  options: ApiServerOptions,
  args: ExecutionArgs,
  work: (args: ExecutionArgs) => Result | Promise<Result>,
): Promise<Result | ExecutionResult> {
  const refused = beyondScope(args);
  const result = refused ? { errors: [refused] } : await inSpan(args, work);
  if ('errors' in result) tellDenials(options, args.contextValue as ApiContext, result.errors);
  return result;
}

/** Why a caller's token was not made for an operation; null when it was. */
function beyondScope({ document, operationName, contextValue }: ExecutionArgs): GraphQLError | null {
  const operation = getOperationAST(document, operationName);
  try {
    requireScope(
      (contextValue as ApiContext).principal,
      operation?.operation === OperationTypeNode.MUTATION ? 'write' : 'read',
    );
    return null;
  } catch (error) {
    return new GraphQLError((error as Error).message, { nodes: operation ?? null, originalError: error as Error });
  }
}

/** Tells of what was forbidden, by the names of fields; of an operation that is forbidden as a whole, by its kind. */
function tellDenials(options: ApiServerOptions, context: ApiContext, errors: readonly GraphQLError[] = []): void {
  const { principal, requestId, address } = context;
  for (const { nodes, path, originalError, extensions } of errors) {
    const code = isCodedError(originalError) ? originalError.code : extensions?.['code'];
    if (code !== 'FORBIDDEN') continue;
    const [node] = nodes ?? [];
    const field = node?.kind === Kind.FIELD ? node.name.value : path?.[0];
    const name = field ?? (node?.kind === Kind.OPERATION_DEFINITION ? node.operation : 'operation');
    options.onDenied?.(principal, String(name), { requestId, ...(address !== undefined && { address }) });
  }
}

/** An error of a request as one of its answer. */
function asRefusal(error: Error): GraphQLError {
  return new GraphQLError(error.message, { originalError: error });
}

function authorizationOf(parameters: Readonly<Record<string, unknown>> | undefined): string | undefined {
  const given = parameters?.['authorization'] ?? parameters?.['Authorization'];
  return typeof given === 'string' ? given : undefined;
}

type Compiled = CompiledQuery | { errors: readonly GraphQLError[] };

/** What a document comes to in the schema of one role. */
interface Prepared {
  errors?: readonly GraphQLError[];
  readonly operations: Map<string, Compiled>;
  /** Null for those that are executed. */
  readonly direct: Map<string, DirectOperation | null>;
}

const RULES = [...specifiedRules, UnconditionalSubscription];
/** What graphql adds to a name that it does not know: names that it does. */
const SUGGESTION = / Did you mean .*\?$/s;

/** Parsed, checked and compiled documents by their text and the schema: the same query is prepared once. */
class DocumentCache {
  private readonly byText = new Map<string, DocumentNode>();
  /** The trusted ones that were asked for: the manifest bounds them, and no others push them out. */
  private readonly kept = new Map<string, DocumentNode>();
  /** @param isOpen whether the schema may be looked at */
  constructor(
    private readonly isOpen: boolean,
    private readonly trusted: TrustedDocuments,
  ) {}

  private readonly bySchema = new WeakMap<DocumentNode, Map<GraphQLSchema, Prepared>>();

  parse(text: string): DocumentNode {
    const known = this.kept.get(text) ?? this.byText.get(text);
    if (known) return known;
    const document = unlessTooDeep(() => readDocument(text));
    if (this.trusted.has(text)) {
      this.kept.set(text, document);
      return document;
    }
    if (this.byText.size >= CACHED_DOCUMENTS) this.byText.delete(this.byText.keys().next().value!);
    this.byText.set(text, document);
    return document;
  }

  /** What is wrong with a text; nothing where it is not even a document. */
  faultsOf(schema: GraphQLSchema, text: string): readonly GraphQLError[] {
    try {
      return this.validate(schema, this.parse(text));
    } catch {
      return [];
    }
  }

  /** The document of a text in which nothing is wrong; null for any other. */
  soundOf(schema: GraphQLSchema, text: string): DocumentNode | null {
    try {
      const document = this.parse(text);
      return this.validate(schema, document).length === 0 ? document : null;
    } catch {
      return null;
    }
  }

  validate(schema: GraphQLSchema, document: DocumentNode): readonly GraphQLError[] {
    const prepared = this.prepared(schema, document);
    if (!prepared.errors) {
      const refused = brokenLimit(document) ?? lackingIn(schema, document);
      prepared.errors = refused ? [refused] : this.check(schema, document);
    }
    return prepared.errors;
  }

  private check(schema: GraphQLSchema, document: DocumentNode): readonly GraphQLError[] {
    if (this.isOpen) return validate(schema, document, RULES);
    return validate(schema, document, [...RULES, NoSchemaIntrospectionCustomRule]).map(
      ({ message, nodes }) => new GraphQLError(message.replace(SUGGESTION, ''), { nodes: nodes ?? null }),
    );
  }

  /** As `execute`, but where the answer is text already it is left so. */
  async answer(args: ExecutionArgs): Promise<DataText | ExecutionResult> {
    const { schema, document } = args;
    const name = args.operationName ?? '';
    const { direct } = this.prepared(schema, document);
    let operation = direct.get(name);
    if (operation === undefined)
      direct.set(name, (operation = DirectOperation.of(schema, document, args.operationName ?? null)));
    if (operation) {
      const { coerced, errors } = this.coerced(args);
      if (errors) return { errors };
      const answer = await operation.answer(coerced, args.contextValue as ApiContext);
      if (answer) return answer;
    }
    return this.execute(args);
  }

  execute(args: ExecutionArgs) {
    const { schema } = args;
    const name = args.operationName ?? '';
    const { operations } = this.prepared(schema, args.document);
    let compiled = operations.get(name);
    if (!compiled) {
      const made = compileQuery(schema, withCoercedVariables(args.document), name);
      compiled = isCompiledQuery(made) ? made : { errors: made.errors ?? [] };
      operations.set(name, compiled);
    }
    if (!('query' in compiled)) return compiled;
    const { coerced, errors } = this.coerced(args);
    if (errors) return { errors };
    return compiled.query(undefined, args.contextValue, coerced);
  }

  private coerced({
    schema,
    document,
    operationName,
    variableValues,
  }: ExecutionArgs): ReturnType<typeof getVariableValues> {
    const tooDeep = tooDeepVariable(variableValues);
    if (tooDeep) return { errors: [tooDeep] };
    const definitions = getOperationAST(document, operationName)?.variableDefinitions ?? [];
    return getVariableValues(schema, definitions, variableValues ?? {}, { maxErrors: MAX_VARIABLE_ERRORS });
  }

  private prepared(schema: GraphQLSchema, document: DocumentNode): Prepared {
    let schemas = this.bySchema.get(document);
    if (!schemas) this.bySchema.set(document, (schemas = new Map()));
    let prepared = schemas.get(schema);
    if (!prepared) schemas.set(schema, (prepared = { operations: new Map(), direct: new Map() }));
    return prepared;
  }
}

/**
 * The document as graphql-jit gets it: its variables arrive coerced, so it has nothing to check. Its own check is compiled
 * for every level of an input type, which never ends for one that holds itself, such as a condition with `and`.
 * Booleans stay, because it looks at the type of those that `@skip` and `@include` name.
 */
function withCoercedVariables(document: DocumentNode): DocumentNode {
  return visit(document, {
    VariableDefinition: (node) => {
      const type = node.type.kind === Kind.NON_NULL_TYPE ? node.type.type : node.type;
      if (type.kind === Kind.NAMED_TYPE && type.name.value === 'Boolean') return false;
      const { defaultValue: _default, ...rest } = node;
      return { ...rest, type: { kind: Kind.NAMED_TYPE, name: { kind: Kind.NAME, value: JsonScalar.name } } };
    },
  });
}

/** Reads a document. Who reads it goes down as deep as it is nested, so one can be made that no stack is deep enough for. */
function unlessTooDeep<Result>(read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    if (!isTooDeep(error)) throw error;
    const extensions = { code: 'QUERY_TOO_COMPLEX', limit: 'MAX_DEPTH', max: MAX_DEPTH };
    throw new GraphQLError('The document is nested too deeply.', { extensions });
  }
}

/** Where in the document an error arose, as far as it is known. */
function placeOf({ nodes, path }: Partial<GraphQLError>): GraphQLErrorOptions {
  return { nodes: nodes ?? null, path: path ?? null };
}

/** `requestId` goes to the log with what is hidden, so that an operator finds it by the answer's x-request-id. */
type FormatError = (error: Error, requestId?: string) => GraphQLError;

/** Makes what leaves the server of an error: a code and a sentence. The unexpected goes to the log, not to the caller. */
function errorFormatter(logger: Logger): FormatError {
  return (error, requestId) => {
    const cause = (error as GraphQLError).originalError ?? error;
    const place = placeOf(error);
    // The codes of other parts are for operators: a store that is away is nothing the caller can correct.
    if (isCodedError(cause) && Object.hasOwn(API_ERRORS, cause.code)) {
      // One of ours that a caller can do something about; why it arose is for the log, like that of any other.
      if (cause.code === 'INTERNAL_ERROR') logger.error({ err: cause.cause ?? cause, requestId }, 'a resolver failed');
      return new GraphQLError(cause.message, { ...place, extensions: { ...cause.details, code: cause.code } });
    }
    if (error instanceof GraphQLError && error.extensions?.['code']) return error;
    // A fault of the document or its variables, which graphql says of itself. One with a path and without a cause arose while
    // executing: a resolver answered null where the schema promises a value, which is our fault and not the caller's.
    const isOfRequest = error.name === 'GraphQLError' && cause === error && !(error as GraphQLError).path;
    if (isOfRequest || (cause !== error && cause instanceof GraphQLError)) {
      return new GraphQLError(error.message, { ...place, extensions: { code: 'VALIDATION_ERROR' } });
    }
    logger.error({ err: cause, requestId }, 'a resolver failed');
    const hidden = apiError(
      'INTERNAL_ERROR',
      'Something went wrong on our side. The log has it under the x-request-id of this answer.',
    );
    return new GraphQLError(hidden.message, { ...place, extensions: { code: hidden.code } });
  };
}
