import { type ArgumentsHost, Catch, Inject, type WsExceptionFilter } from '@nestjs/common';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { Denials } from '../credentials/index.js';
import type { ClientSocket } from '../sockets/index.js';
import { errorBody, faultOf } from './fault.js';

/**
 * Answers every fault of a socket event in its ack, in the words of the socket's protocol. Without this filter Nest never
 * calls the ack, and sends the client's whole payload back in an `exception` event.
 */
@Catch()
export class AckFaults implements WsExceptionFilter {
  constructor(
    @Inject(LOGGER) private readonly logger: Logger,
    private readonly denials: Denials,
  ) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const { data, handshake } = host.switchToWs().getClient<ClientSocket>();
    const { body, isOurs } = faultOf(error, data.protocol ?? 1);
    this.denials.ofKey(data.key, host.switchToWs().getPattern(), errorBody(error).code, { address: handshake.address });
    if (isOurs) this.logger.error({ err: error }, 'a socket event failed');
    const ack = host.getArgs<unknown[]>().find((argument) => typeof argument === 'function');
    // A client may send an event without asking for an answer.
    (ack as ((answer: unknown) => void) | undefined)?.({ success: false, error: body });
  }
}
