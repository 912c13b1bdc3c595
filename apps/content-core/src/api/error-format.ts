import { GraphQLError, type GraphQLErrorOptions } from 'graphql';
import { apiError, API_ERRORS, isCodedError } from '@atomo-cc/kernel';
import type { Logger } from '@atomo-cc/platform/logging';

/** Where in the document an error arose, as far as it is known. */
function placeOf({ nodes, path }: Partial<GraphQLError>): GraphQLErrorOptions {
  return { nodes: nodes ?? null, path: path ?? null };
}

/** `requestId` goes to the log with what is hidden, so that an operator finds it by the answer's x-request-id. */
export type FormatError = (error: Error, requestId?: string) => GraphQLError;

/** Makes what leaves the server of an error: a code and a sentence. The unexpected goes to the log, not to the caller. */
export function errorFormatter(logger: Logger): FormatError {
  return (error, requestId) => {
    const cause = (error as GraphQLError).originalError ?? error;
    const place = placeOf(error);
    // The codes of other parts are for operators: a store that is away is nothing the caller can correct.
    if (isCodedError(cause) && Object.hasOwn(API_ERRORS, cause.code)) {
      // One of ours that a caller can do something about; why it arose is for the log, like that of any other.
      if (cause.code === 'INTERNAL_ERROR') logger.error({ err: cause.cause ?? cause, requestId }, 'a resolver failed');
      return new GraphQLError(cause.message, { ...place, extensions: { ...cause.details, code: cause.code } });
    }
    if (error instanceof GraphQLError && error.extensions?.['code']) return error;
    // A fault of the document or its variables, which graphql says of itself. One with a path and without a cause arose while
    // executing: a resolver answered null where the schema promises a value, which is our fault and not the caller's.
    const isOfRequest = error.name === 'GraphQLError' && cause === error && !(error as GraphQLError).path;
    if (isOfRequest || (cause !== error && cause instanceof GraphQLError)) {
      return new GraphQLError(error.message, { ...place, extensions: { code: 'VALIDATION_ERROR' } });
    }
    logger.error({ err: cause, requestId }, 'a resolver failed');
    const hidden = apiError(
      'INTERNAL_ERROR',
      'Something went wrong on our side. The log has it under the x-request-id of this answer.',
    );
    return new GraphQLError(hidden.message, { ...place, extensions: { code: hidden.code } });
  };
}
