import { context, ROOT_CONTEXT } from '@opentelemetry/api';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { CodedError } from '@atomo-cc/kernel';
import { contextOf, isTracing, opened, type ScopedSpan } from './tracing.js';

/** Routes that are asked every few seconds by machines, and answer nothing that a trace explains. */
const UNTRACED = /^\/(?:health\/|metrics$)/;

/**
 * Gives each request of a server a span that continues the caller's `traceparent`, and runs its handlers, and the hooks that
 * are added later, inside. To be called before other hooks are added, once tracing is started; without tracing it adds none.
 * A span names the route's pattern, never the path, the address or a header.
 */
export function traceRequests(fastify: FastifyInstance): void {
  if (!isTracing()) return;
  const spans = new WeakMap<FastifyRequest, ScopedSpan>();
  const within = (request: FastifyRequest, done: () => void) => {
    const span = spans.get(request);
    if (span) context.with(span.context, done);
    else done();
  };
  fastify.addHook('onRequest', (request, _reply, done) => {
    const route = request.routeOptions.url ?? 'none';
    if (isTracing() && !UNTRACED.test(route)) {
      const { traceparent } = request.headers;
      const parent = contextOf(typeof traceparent === 'string' ? traceparent : undefined) ?? ROOT_CONTEXT;
      const attributes = { 'http.request.method': request.method, 'http.route': route };
      spans.set(request, opened(`${request.method} ${route}`, { kind: 'server', attributes }, parent));
    }
    within(request, done);
  });
  // The body arrives by events of the socket, which know nothing of the request's context.
  fastify.addHook('preValidation', (request, _reply, done) => within(request, done));
  fastify.addHook('onRequestAbort', (request, done) => {
    spans.get(request)?.end({ attributes: { 'error.type': 'aborted' } });
    done();
  });
  fastify.addHook('onResponse', (request, reply, done) => {
    const status = reply.statusCode;
    const error = status >= 500 ? new CodedError('INTERNAL_ERROR', String(status)) : undefined;
    spans.get(request)?.end({ attributes: { 'http.response.status_code': status }, error });
    within(request, done);
  });
}
