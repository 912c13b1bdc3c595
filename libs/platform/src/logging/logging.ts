import type { LoggerService } from '@nestjs/common';
import { pino, type Logger } from 'pino';
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
  // A refused login of Redis carries the command it was, and a failed statement its parameters.
  'err.command.args',
  'err.parameters',
  'err.driverError.parameters',
  ...['password', 'accessToken', 'refreshToken', 'apiKey', 'authorization'].flatMap((name) => [
    name,
    `*.${name}`,
    `*.*.${name}`,
  ]),
];

/** The service's JSON logger. Lines that are written within a span have its `traceId` and `spanId`. */
export function createLogger(service: string, level: string): Logger {
  return pino({
    name: service,
    level,
    mixin: traceIds,
    redact: { paths: REDACTED, censor: '[redacted]' },
    serializers: {
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
