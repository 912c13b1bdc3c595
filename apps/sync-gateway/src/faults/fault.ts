import { HttpException } from '@nestjs/common';
import { isCodedError } from '@atomo-cc/kernel';
import {
  isSyncErrorCode,
  protocol1Code,
  SYNC_ERROR_STATUS,
  type SyncErrorBody,
  type SyncErrorCode,
} from '@atomo-cc/sync-protocol';

/** A fault as a client meets it; `isOurs` says that the log must have it. */
export interface Fault {
  readonly status: number;
  readonly body: SyncErrorBody;
  readonly isOurs: boolean;
}

/** Translates whatever was thrown. Nothing of an unforeseen error leaves the gateway. */
export function faultOf(error: unknown): Fault {
  if (isCodedError(error) && isSyncErrorCode(error.code)) {
    const details = error.details ? { details: error.details } : {};
    const code = protocol1Code(error.code);
    return fault(SYNC_ERROR_STATUS[code], code, error.message, details);
  }
  // What Fastify and Nest refuse before a handler is reached; their messages speak of the request's form only.
  const status = error instanceof HttpException ? error.getStatus() : (error as { statusCode?: number }).statusCode;
  if (status === 404) return fault(404, 'NOT_FOUND', 'There is nothing at this address.');
  if (status === 413) return fault(413, 'VALIDATION_ERROR', 'The body is larger than this route takes.');
  if (status !== undefined && status >= 400 && status < 500) {
    return fault(
      400,
      'VALIDATION_ERROR',
      'The request is malformed: send well-formed JSON with content-type application/json.',
    );
  }
  return fault(500, 'INTERNAL_ERROR', 'Something went wrong on our side; the log has it. Try again.');
}

function fault(status: number, code: SyncErrorCode, message: string, more: object = {}): Fault {
  return { status, body: { code, message, ...more }, isOurs: code === 'INTERNAL_ERROR' };
}
