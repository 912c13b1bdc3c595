import 'reflect-metadata';
import { connect } from 'node:net';
import {
  type ArgumentsHost,
  type DynamicModule,
  type ExceptionFilter,
  Global,
  Module,
  type Provider,
  type Type,
} from '@nestjs/common';
import { APP_FILTER, NestFactory } from '@nestjs/core';
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify';
import {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import { apiError, type ApiErrorCode, API_ERRORS, isCodedError, uuidv7 } from '@atomo-cc/kernel';
import { Health } from '../health/index.js';
import { createLogger, nestLogger, type Logger } from '../logging/index.js';
import { Metrics, startTracing, traceRequests, type TracingOptions } from '../telemetry/index.js';
import type { IsTrusted } from '../config/index.js';

/** The longest a service takes to end what it has after SIGTERM; below the 300 s that Fly and compose grant. */
const STOP_TIMEOUT_MS = 280_000;
/** The default limit of a request's body; routes that take files stream them and set their own. */
const BODY_LIMIT = 1024 * 1024;
/** A body refused for its length is read to its end up to this many bytes. */
const HEARD_OUT_BYTES = 64 * BODY_LIMIT;
/** Levels of a body that are looked through for the reason of a stack that is used up: far more than any shape of ours has. */
const DEEP = 100;
/**
 * What browsers are told with every answer: our answers are data, which no page of anybody is to frame, run or guess the type of.
 * A route that answers a page sets a policy of its own. The list is that of helmet 8, which computes it anew for each request.
 */
const SECURITY_HEADERS = {
  'content-security-policy': "default-src 'none';frame-ancestors 'none'",
  'cross-origin-opener-policy': 'same-origin',
  // Who may read an answer from another origin is CORS' to say, and that lets nobody in unless it is set.
  'cross-origin-resource-policy': 'same-origin',
  'origin-agent-cluster': '?1',
  'referrer-policy': 'no-referrer',
  'strict-transport-security': 'max-age=31536000; includeSubDomains',
  'x-content-type-options': 'nosniff',
  'x-dns-prefetch-control': 'off',
  'x-download-options': 'noopen',
  'x-frame-options': 'DENY',
  'x-permitted-cross-domain-policies': 'none',
  'x-xss-protection': '0',
} as const;
/** The token under which the service's logger is injected. */
export const LOGGER = Symbol('logger');

/** What a service is started with. */
export interface ServiceOptions {
  readonly name: string;
  readonly module: Type | DynamicModule;
  readonly config: {
    readonly HOST: string;
    readonly LOG_LEVEL: string;
    readonly ATOMO_SUPERVISOR: string;
    readonly TRUSTED_PROXIES?: IsTrusted;
    readonly OTEL_EXPORTER_OTLP_ENDPOINT?: string;
    readonly OTEL_EXPORTER_OTLP_HEADERS?: Readonly<Record<string, string>>;
    readonly OTEL_TRACES_SAMPLER_ARG?: number;
  };
  /** The port to listen on; 0 takes a free one. */
  readonly port: number;
  /** What every module may inject: the service's databases and connections. */
  readonly provide?: readonly Provider[];
  /** Closes what was provided, after all modules have stopped. */
  readonly close?: () => Promise<unknown>;
  /** Sets up what Nest has no word for (plain Fastify routes, a socket adapter), before the service listens. */
  readonly configure?: (app: NestFastifyApplication) => void | Promise<void>;
  /** What a request is answered whose address is no URL: it meets no route, and so no filter of the service. */
  readonly unroutable?: (error: Error, url: string) => { readonly status: number; readonly body: object };
  /** Told once the service listens, and where. */
  readonly listening?: (url: string, app: NestFastifyApplication) => void;
}

/** A service that listens. */
export interface RunningService {
  readonly url: string;
  readonly app: NestFastifyApplication;
  /** Stops taking work, ends what is under way, closes all connections. Calling it again waits for the first call. */
  stop(): Promise<void>;
}

/** Answers the errors of a service that has no filter of its own. Without `@Catch` it is asked for all of them. */
class CodedAnswers implements ExceptionFilter {
  constructor(private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    const { status, body } = restError(isTooDeep(error) && isDeep(request.body) ? nestedTooDeeply() : error);
    if (status >= 500) this.logger.error({ req: request, err: error }, 'a request failed');
    if (reply.sent) return;
    if (status === 401) void reply.header('www-authenticate', 'Bearer');
    const { retryAfterSeconds } = (body.error.details ?? {}) as { retryAfterSeconds?: number };
    if (status === 429 && retryAfterSeconds !== undefined) void reply.header('retry-after', retryAfterSeconds);
    void reply.status(status).send(body);
  }
}

/** Gives every module the service's logger, health, metrics, and what the service provides. */
@Global()
@Module({})
class PlatformModule {
  static with(logger: Logger, health: Health, metrics: Metrics, provided: readonly Provider[]): DynamicModule {
    const providers: Provider[] = [
      ...provided,
      { provide: LOGGER, useValue: logger },
      { provide: Health, useValue: health },
      { provide: Metrics, useValue: metrics },
    ];
    // Nest asks the filters from the last to the first, so one that a service brings itself goes before this.
    const filter: Provider = { provide: APP_FILTER, useValue: new CodedAnswers(logger) };
    return { module: PlatformModule, providers: [...providers, filter], exports: providers };
  }
}

/**
 * Runs a service: health and metrics endpoints, JSON logs with request ids, coded errors, clean stop on SIGTERM and SIGINT.
 * When the boot fails it prints one sentence to standard error and ends the process with code 1.
 */
export async function runService(options: () => ServiceOptions | Promise<ServiceOptions>): Promise<void> {
  let service: RunningService;
  try {
    const resolved = await options();
    service = await startService(resolved);
    const stop = () => void stopProcess(service);
    process.once('SIGTERM', stop);
    process.once('SIGINT', stop);
    if (resolved.config.ATOMO_SUPERVISOR) announce(resolved.config.ATOMO_SUPERVISOR, resolved.name, service.url, stop);
  } catch (error) {
    process.stderr.write(`${describeBootFault(error)}\n`);
    process.exit(1);
  }
}

/** Starts a service and answers once it listens. Where it cannot, what was provided is closed before the error is thrown. */
export async function startService(options: ServiceOptions): Promise<RunningService> {
  const logger = createLogger(options.name, options.config.LOG_LEVEL);
  const tracing = startTracing(tracingOf(options, logger));
  const health = new Health();
  const metrics = new Metrics(options.name);
  const adapter = new FastifyAdapter({
    loggerInstance: logger as unknown as FastifyBaseLogger,
    // One line per request is written below, when its outcome is known.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_LIMIT,
    genReqId: () => uuidv7(),
    // One for all requests: to make a logger costs each of them more than to write a line, which has the request with its id.
    childLoggerFactory: (parent: FastifyBaseLogger) => parent,
    // Ends idle keep-alive connections at close, or a stop would wait for every client to go away.
    forceCloseConnections: 'idle',
    frameworkErrors: (error: Error, { url }: FastifyRequest, reply: FastifyReply) => {
      const { status, body } = options.unroutable?.(error, url) ?? restError(error);
      void reply.status(status).send(body);
    },
    trustProxy: options.config.TRUSTED_PROXIES ?? false,
  });
  const root: DynamicModule = {
    module: class ServiceRoot {},
    imports: [PlatformModule.with(logger, health, metrics, options.provide ?? []), options.module],
  };
  const app = await NestFactory.create<NestFastifyApplication>(root, adapter, {
    logger: nestLogger(logger),
    abortOnError: false,
    // Nest's own parsers would take forms too, which a page of anybody can send without asking first.
    bodyParser: false,
  });
  const fastify: FastifyInstance = app.getHttpAdapter().getInstance();
  fastify.removeContentTypeParser('text/plain');
  traceRequests(fastify);
  hearOut(fastify);
  addOperatorRoutes(fastify, health, metrics, logger);
  try {
    await options.configure?.(app);
    await app.listen(options.port, options.config.HOST);
  } catch (error) {
    await app.close().catch(() => undefined);
    await options.close?.().catch(() => undefined);
    await tracing.stop();
    throw error;
  }
  const address = fastify.server.address();
  const port = typeof address === 'object' && address ? address.port : options.port;
  const host = options.config.HOST === '0.0.0.0' ? '127.0.0.1' : options.config.HOST;
  const url = `http://${host}:${port}`;
  logger.info({ url }, 'listening');
  options.listening?.(url, app);
  let stopped: Promise<void> | undefined;
  return {
    url,
    app,
    stop: () => {
      health.stopping();
      stopped ??= app
        .close()
        .then(async () => void (await options.close?.()))
        .finally(() => tracing.stop());
      return stopped;
    },
  };
}

function tracingOf({ name, config }: ServiceOptions, logger: Logger): TracingOptions {
  return {
    service: name,
    endpoint: config.OTEL_EXPORTER_OTLP_ENDPOINT ?? '',
    headers: config.OTEL_EXPORTER_OTLP_HEADERS ?? {},
    ratio: config.OTEL_TRACES_SAMPLER_ARG ?? 1,
    onExport: (error) => {
      if (error) logger.warn({ err: error }, 'the collector takes no traces');
      else logger.info('the collector takes traces again');
    },
  };
}

/**
 * Lets whoever sends a body beyond the limit send it to its end, unheeded. Fastify would shut the connection with its answer: a
 * client that is still writing then meets a reset, and often never reads why.
 */
export function hearOut(fastify: FastifyInstance): void {
  fastify.addHook('onSend', (request, reply, _payload, done) => {
    const length = Number(request.headers['content-length']);
    if (length > request.routeOptions.bodyLimit && length <= HEARD_OUT_BYTES) reply.removeHeader('connection');
    done();
  });
}

function addOperatorRoutes(fastify: FastifyInstance, health: Health, metrics: Metrics, logger: Logger): void {
  fastify.get('/health/live', () => ({ status: 'live' }));
  fastify.get('/health/ready', async (_request, reply) => {
    const readiness = await health.readiness();
    return reply.status(readiness.status === 'ready' ? 200 : 503).send(readiness);
  });
  fastify.get('/metrics', async (_request, reply) =>
    reply.header('content-type', metrics.registry.contentType).send(await metrics.registry.metrics()),
  );
  fastify.addHook('onRequest', (request, reply, done) => {
    void reply.headers(SECURITY_HEADERS).header('x-request-id', request.id);
    done();
  });
  fastify.addHook('onResponse', (request, reply, done) => {
    done();
    const route = request.routeOptions.url ?? 'none';
    // How long a stream of events was open says nothing of how fast requests are answered.
    const isStream = String(reply.getHeader('content-type')).startsWith('text/event-stream');
    if (!isStream) metrics.observeRequest(request.method, route, reply.statusCode, reply.elapsedTime / 1000);
    if (route.startsWith('/health/') || route === '/metrics') return;
    const line = { req: request, status: reply.statusCode, ms: Math.round(reply.elapsedTime) };
    if (reply.statusCode >= 500) logger.error(line, 'answered');
    else logger.debug(line, 'answered');
  });
}

/** Tells the supervisor where this service is, and stops with it: nothing outlives a killed supervisor. */
function announce(socketPath: string, name: string, url: string, stop: () => void): void {
  const socket = connect(socketPath, () => {
    socket.write(`${JSON.stringify({ name, pid: process.pid, url })}\n`);
  });
  socket.on('error', () => undefined);
  socket.once('close', stop);
  socket.unref();
}

let isStopping = false;

async function stopProcess(service: RunningService): Promise<void> {
  if (isStopping) return;
  isStopping = true;
  setTimeout(() => process.exit(1), STOP_TIMEOUT_MS).unref();
  await service.stop().catch((error: unknown) => process.stderr.write(`${describeBootFault(error)}\n`));
  process.exit(0);
}

function describeBootFault(error: unknown): string {
  if (isCodedError(error)) return error.message;
  const { code, message } = error as { code?: string; message?: string; port?: number };
  if (code === 'EADDRINUSE')
    return `The port is taken (${message ?? code}): stop the other program, or set another port.`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

const HTTP_STATUS: Readonly<Record<ApiErrorCode, number>> = {
  UNAUTHENTICATED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  VALIDATION_ERROR: 400,
  CONFLICT: 409,
  RATE_LIMITED: 429,
  QUERY_TOO_COMPLEX: 400,
  INTERNAL_ERROR: 500,
};

/** What a REST route answers for an error: the status and a body without stack, SQL or secret. */
export function restError(error: unknown): {
  status: number;
  body: { error: { code: string; message: string; details?: unknown } };
} {
  const known = isCodedError(error) && error.code in API_ERRORS ? error : fromFramework(error);
  const code = known.code as ApiErrorCode;
  const details = known.details === undefined ? {} : { details: known.details };
  return { status: HTTP_STATUS[code], body: { error: { code, message: known.message, ...details } } };
}

function fromFramework(error: unknown) {
  const { statusCode, status, message } = (error ?? {}) as { statusCode?: number; status?: number; message?: string };
  const given = statusCode ?? status ?? 500;
  if (given === 404) return apiError('NOT_FOUND', 'There is nothing at this address.');
  if (given === 413) return apiError('VALIDATION_ERROR', 'The body is larger than this route takes.');
  if (given === 415)
    return apiError('VALIDATION_ERROR', 'The body is to be JSON, with content-type: application/json.');
  if (given >= 400 && given < 500) return apiError('VALIDATION_ERROR', message ?? 'The request is malformed.');
  return apiError(
    'INTERNAL_ERROR',
    'Something went wrong on our side. The log has it under the x-request-id of this answer.',
  );
}

function nestedTooDeeply() {
  return apiError('VALIDATION_ERROR', 'The body is nested too deeply.');
}

/** True for the error of a stack that is used up. By its name, since there may be several RangeErrors in one process. */
export function isTooDeep(error: unknown): boolean {
  const { name, message } = (error ?? {}) as Partial<Error>;
  return name === 'RangeError' && message === 'Maximum call stack size exceeded';
}

/** Whether a value has more levels than any that is meant, so that it, and no fault of ours, has used up the stack. */
function isDeep(value: unknown): boolean {
  let level = [value];
  for (let depth = 0; depth < DEEP && level.length > 0; depth += 1) {
    level = level.flatMap((each) => (typeof each === 'object' && each !== null ? Object.values(each) : []));
  }
  return level.length > 0;
}
