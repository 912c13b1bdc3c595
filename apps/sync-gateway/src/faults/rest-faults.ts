import { type ArgumentsHost, Catch, type ExceptionFilter, Inject } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { REST_BASE_2 } from '@atomo-cc/sync-protocol';
import { faultOf } from './fault.js';

/** Answers every REST fault with `{"error": {"code", "message", "details"?}}`, in the codes of the route's protocol. */
@Catch()
export class RestFaults implements ExceptionFilter {
  constructor(@Inject(LOGGER) private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const { status, body, isOurs } = restFault(error, request.url);
    if (isOurs) this.logger.error({ err: error, requestId: request.id }, 'a request failed');
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    if (!reply.sent) void reply.status(status).send(body);
  }
}

/** What a request to this address is refused with, in the codes of its protocol. */
export function restFault(error: unknown, url: string): { status: number; body: object; isOurs: boolean } {
  const { body, ...fault } = faultOf(error, url.startsWith(`/${REST_BASE_2}`) ? 2 : 1);
  return { ...fault, body: { error: body } };
}
