import { HttpException } from '@nestjs/common';
import { isCodedError } from '@atomo-cc/kernel';
import {
  isRetryable,
  isSyncErrorCode,
  protocol1Code,
  SYNC_ERROR_STATUS,
  type Sync2ErrorBody,
  type Sync2ErrorCode,
  type SyncErrorBody,
  syncError,
} from '@atomo-cc/sync-protocol';

/** A fault as a client meets it; `isOurs` says that the log must have it. */
export interface Fault {
  readonly status: number;
  readonly body: SyncErrorBody | Sync2ErrorBody;
  readonly isOurs: boolean;
}

/** What protocol 2 answers for an error. Nothing of an unforeseen one leaves the gateway. */
export function errorBody(error: unknown): Sync2ErrorBody {
  const { code, message, details } = known(error);
  return {
    code: code as Sync2ErrorCode,
    message,
    retryable: isRetryable(code as Sync2ErrorCode),
    ...(details && Object.keys(details).length > 0 && { details }),
  };
}

/** Translates whatever was thrown for a client of the protocol. */
export function faultOf(error: unknown, protocol: 1 | 2): Fault {
  const body = errorBody(error);
  const isOurs = body.code === 'INTERNAL_ERROR';
  if (protocol === 2) return { status: SYNC_ERROR_STATUS[body.code], body, isOurs };
  const { retryable: _none, ...rest } = body;
  const code = protocol1Code(body.code);
  return {
    status: SYNC_ERROR_STATUS[SAID_BY_STATUS.has(body.code) ? body.code : code],
    body: { ...rest, code },
    isOurs,
  };
}

/** What HTTP has a status for that protocol 1 has no code for. */
const SAID_BY_STATUS: ReadonlySet<string> = new Set<Sync2ErrorCode>(['PAYLOAD_TOO_LARGE', 'PRECONDITION_FAILED']);

function known(error: unknown) {
  if (isCodedError(error) && isSyncErrorCode(error.code)) return error;
  // What Fastify and Nest refuse before a handler is reached; their messages speak of the request's form only.
  const status =
    error instanceof HttpException ? error.getStatus() : (error as { statusCode?: number } | null)?.statusCode;
  if (status === 404) return syncError('NOT_FOUND', 'There is nothing at this address.');
  if (status === 413) return syncError('PAYLOAD_TOO_LARGE', 'The body is larger than this route takes.');
  if (status !== undefined && status >= 400 && status < 500) {
    return syncError(
      'VALIDATION_ERROR',
      'The request is malformed: send well-formed JSON with content-type application/json.',
    );
  }
  return syncError('INTERNAL_ERROR', 'Something went wrong on our side; the log has it. Try again.');
}
