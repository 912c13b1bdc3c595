import { createHash } from 'node:crypto';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { getOperationAST, OperationTypeNode, type ExecutionArgs, type ExecutionResult } from 'graphql';
import { createHandler, parseRequestParams, type Request, type RequestParams, type Response } from 'graphql-http';
import { renderGraphiQL } from '@graphql-yoga/render-graphiql';
import { apiError, isCodedError, type CodedError } from '@atomo-cc/kernel';
import { isTooDeep } from '@atomo-cc/platform/lifecycle';
import { DataText } from './direct-answer.js';
import { DocumentCache } from './document-cache.js';
import { errorFormatter } from './error-format.js';
import { eventStreamIn, sendEventStream, type EventStream } from './event-stream.js';
import { asRefusal, carryOut, tellDenials, type ApiServerOptions } from './operations.js';
import type { ApiContext } from './part.js';
import { Subscribers, type Connection, type Followed } from './subscribers.js';
import { serveSockets } from './subscription-sockets.js';
import { TrustedDocuments } from './trusted-documents.js';

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
      const type = mediaTypeOf(request.raw.headers.accept);
      const headers = { 'content-type': `${type}; charset=utf-8` };
      // Of wrong variables and the like nothing was carried out: there is no data, which this media type must say by its status.
      const isRefused = result.errors !== undefined && result.data === undefined;
      const said =
        isRefused && type !== 'application/json'
          ? { status: 400, statusText: 'Bad Request' }
          : { status: 200, statusText: 'OK' };
      return [bodyOf(result, request.raw.id), { ...said, headers }];
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
    const message = error.code === 'FST_ERR_CTP_INVALID_JSON_BODY' ? NO_JSON : error.message;
    const told = status < 500 ? refusedRequest(status, request, message) : error;
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
/** The second would give an object of ours another prototype. */
const NO_JSON = 'The body is no JSON, or has a key __proto__, which nothing may be called.';

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
