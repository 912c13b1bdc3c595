import { type ArgumentsHost, Catch, type ExceptionFilter, Inject } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { REST_BASE, REST_BASE_2 } from '@atomo-cc/sync-protocol';
import { bearerOf, Denials } from '../credentials/index.js';
import { errorBody, faultOf } from './fault.js';

/** Answers every REST fault with `{"error": {"code", "message", "details"?}}`, in the codes of the route's protocol. */
@Catch()
export class RestFaults implements ExceptionFilter {
  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly denials: Denials,
  ) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const { status, body, isOurs } = restFault(error, request.url);
    this.tell(request, errorBody(error).code);
    if (isOurs) this.logger.error({ err: error, requestId: request.id }, 'a request failed');
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    if (!reply.sent) void reply.status(status).send(body);
  }

  /** Lets the log know of what a key was refused, and of who tries the admin routes without the master key. */
  private tell(request: FastifyRequest, code: string): void {
    const route = request.routeOptions.url ?? 'none';
    const [operation, from] = [`${request.method} ${route}`, { address: request.ip, requestId: request.id }];
    const isAdmin = route.startsWith(`/${REST_BASE}/admin`);
    if (isAdmin && (code === 'UNAUTHORIZED' || code === 'FORBIDDEN')) this.denials.ofNobody(operation, from);
    const key = bearerOf(request);
    if (key) this.denials.ofKey(key, operation, code, from);
  }
}

/** What a request to this address is refused with, in the codes of its protocol. */
export function restFault(error: unknown, url: string): { status: number; body: object; isOurs: boolean } {
  const { body, ...fault } = faultOf(error, url.startsWith(`/${REST_BASE_2}`) ? 2 : 1);
  return { ...fault, body: { error: body } };
}
