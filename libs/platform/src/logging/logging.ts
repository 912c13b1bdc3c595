import type { LoggerService } from '@nestjs/common';
import { pino, stdSerializers, type Logger } from 'pino';
import { traceIds } from '../telemetry/index.js';

export type { Logger } from 'pino';

/**
 * Where secrets could ride along in what is logged. Query strings are cut by `loggedUrl`, because protocol 1 of file sync
 * carries its key there.
 */
const REDACTED = [
  'req.headers.authorization',
  'req.headers.cookie',
  'req.headers["x-api-key"]',
  // A refused login of Redis carries the command it was.
  'err.command.args',
  ...['password', 'accessToken', 'refreshToken', 'apiKey', 'authorization'].flatMap((name) => [
    name,
    `*.${name}`,
    `*.*.${name}`,
  ]),
];

/**
 * What Postgres and TypeORM say beside the message that quotes values: a row's (`Key (email)=(…) already exists`), those a
 * function was called with, and a statement's parameters. They may be somebody's personal data, and a log is kept for long.
 */
const QUOTING = ['detail', 'where', 'internalQuery', 'parameters'];

/** An error as it is logged: with its causes' messages and stacks, without the values that Postgres quotes. */
function loggedError(error: Error): unknown {
  const logged: unknown = stdSerializers.err(error);
  if (logged !== error) hideValues(logged, Object.getPrototypeOf(logged));
  return logged;
}

/** @param made the prototype of what the serializer has made for this line alone: to change that changes no error */
function hideValues(logged: unknown, made: unknown): void {
  if (typeof logged !== 'object' || logged === null || Object.getPrototypeOf(logged) !== made) return;
  const fields = logged as Record<string, unknown>;
  for (const name of QUOTING) if (fields[name] !== undefined) fields[name] = '[redacted]';
  for (const value of Object.values(fields).flat()) hideValues(value, made);
}

/**
 * An error for the log where its words may quote what was worked on, such as the values of an event: its kind, its code and where it
 * was thrown are left. Who keeps its words keeps them where they can be erased.
 */
export function withoutWords(error: unknown): Error {
  const { name, message, code, stack } = { name: 'Error', message: '', code: undefined, stack: '', ...wordsOf(error) };
  const frames = stack.slice(stack.indexOf(message) + message.length).match(/^\s+at .*$/gm) ?? [];
  const told = Object.assign(new Error('what it said is not logged'), typeof code === 'string' ? { code } : {});
  told.name = name;
  told.stack = [`${name}: ${told.message}`, ...frames].join('\n');
  return told;
}

function wordsOf(error: unknown): { name?: string; message?: string; code?: unknown; stack?: string } {
  if (!(error instanceof Error)) return {};
  const { name, message, stack = '' } = error;
  return { name, message, stack, code: (error as { code?: unknown }).code };
}

/** The service's JSON logger. Lines that are written within a span have its `traceId` and `spanId`. */
export function createLogger(service: string, level: string): Logger {
  return pino({
    name: service,
    level,
    mixin: traceIds,
    redact: { paths: REDACTED, censor: '[redacted]' },
    serializers: {
      err: loggedError,
      req: (request: { method: string; url: string; id: string }) => ({
        id: request.id,
        method: request.method,
        url: loggedUrl(request.url),
      }),
    },
  });
}

/** A URL without its query string. */
export function loggedUrl(url: string): string {
  const end = url.indexOf('?');
  return end < 0 ? url : `${url.slice(0, end)}?…`;
}

/** Lets Nest write its own lines to the service's logger. */
export function nestLogger(logger: Logger): LoggerService {
  const write =
    (level: 'info' | 'warn' | 'error' | 'debug' | 'trace') =>
    (message: unknown, ...rest: unknown[]) => {
      const context = typeof rest.at(-1) === 'string' ? rest.at(-1) : undefined;
      if (message instanceof Error) logger[level]({ err: message, context }, message.message);
      else logger[level]({ context }, String(message));
    };
  return {
    log: write('debug'),
    warn: write('warn'),
    error: write('error'),
    debug: write('debug'),
    verbose: write('trace'),
  };
}
