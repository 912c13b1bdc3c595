import { type ArgumentsHost, Catch, type ExceptionFilter, Inject } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { faultOf } from './fault.js';

/** Answers every REST fault with `{"error": {"code", "message", "details"?}}`. */
@Catch()
export class RestFaults implements ExceptionFilter {
  constructor(@Inject(LOGGER) private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const { status, body, isOurs } = faultOf(error);
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    if (isOurs) this.logger.error({ err: error, requestId: request.id }, 'a request failed');
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    if (!reply.sent) void reply.status(status).send({ error: body });
  }
}
