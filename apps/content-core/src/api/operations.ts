import {
  GraphQLError,
  getOperationAST,
  Kind,
  OperationTypeNode,
  type ExecutionArgs,
  type ExecutionResult,
} from 'graphql';
import { requireScope, type Origin, type Principal } from '@atomo-cc/access';
import { isCodedError } from '@atomo-cc/kernel';
import type { IsTrusted } from '@atomo-cc/platform/config';
import type { Logger } from '@atomo-cc/platform/logging';
import { currentTraceparent, isTracing, withSpan } from '@atomo-cc/platform/telemetry';
import type { ApiContext } from './part.js';
import type { RoleSchemas } from './role-schemas.js';
import type { Authenticate, Followed } from './subscribers.js';
import type { TrustedDocuments } from './trusted-documents.js';

/** Characters of an operation's name in the name of its span; the name is the caller's, and may be of any length. */
const MAX_SPAN_NAME = 100;

/** What the GraphQL endpoint needs to know of the rest. */
export interface ApiServerOptions {
  /** Each caller is served by the schema of their role. */
  readonly schemas: RoleSchemas;
  /**
   * Turns an Authorization header into who is calling. @throws CodedError UNAUTHENTICATED
   * @param believedMs how old what is known of the session may be; for itself to say unless given
   */
  readonly authenticate: Authenticate;
  /** The same for each operation, which counts against the limits of the caller's tenant; `authenticate` unless given. */
  readonly admit?: (authorization: string | undefined) => Promise<Principal>;
  readonly logger: Logger;
  /** Told of each field or operation that was forbidden. */
  readonly onDenied?: (principal: Principal, operation: string, from: Origin) => void;
  /** Whether callers may look at the schema, and browsers get GraphiQL; so unless it is false. Names are then not suggested either. */
  readonly introspection?: boolean;
  /** Documents that may be named instead of written; none unless given. */
  readonly trusted?: TrustedDocuments;
  /** Whose word on the addresses of callers counts; nobody's unless given. */
  readonly isTrustedProxy?: IsTrusted;
}

/**
 * Carries out an operation within a span of its own, which continues that of the request, or the caller's. It says of the
 * operation its type and name and of its errors the first one's code: no variable, no document, nobody's address.
 */
function inSpan<Result extends Followed>(
  args: ExecutionArgs,
  work: (args: ExecutionArgs) => Result | Promise<Result>,
): Result | Promise<Result> {
  if (!isTracing()) return work(args);
  const given = args.contextValue as ApiContext;
  const operation = getOperationAST(args.document, args.operationName);
  const type = operation?.operation ?? 'query';
  const name = operation?.name?.value.slice(0, MAX_SPAN_NAME);
  const attributes = {
    'graphql.operation.type': type,
    ...(name !== undefined && { 'graphql.operation.name': name }),
    'atomo.tenant': given.principal.tenantId,
  };
  return withSpan(
    name ? `${type} ${name}` : type,
    { parent: given.traceparent, attributes },
    async () => {
      const contextValue: ApiContext = { ...given, traceparent: currentTraceparent() };
      return work({ ...args, contextValue });
    },
    (result) => ('errors' in result ? (result.errors?.[0]?.originalError ?? result.errors?.[0]) : undefined),
  );
}

/** Carries out an operation that the caller's token was made for: the one way to it, over whatever transport. */
export async function carryOut<Result extends Followed>(
  options: ApiServerOptions,
  args: ExecutionArgs,
  work: (args: ExecutionArgs) => Result | Promise<Result>,
): Promise<Result | ExecutionResult> {
  const refused = beyondScope(args);
  const result = refused ? { errors: [refused] } : await inSpan(args, work);
  if ('errors' in result) tellDenials(options, args.contextValue as ApiContext, result.errors);
  return result;
}

/** Why a caller's token was not made for an operation; null when it was. */
function beyondScope({ document, operationName, contextValue }: ExecutionArgs): GraphQLError | null {
  const operation = getOperationAST(document, operationName);
  try {
    requireScope(
      (contextValue as ApiContext).principal,
      operation?.operation === OperationTypeNode.MUTATION ? 'write' : 'read',
    );
    return null;
  } catch (error) {
    return new GraphQLError((error as Error).message, { nodes: operation ?? null, originalError: error as Error });
  }
}

/** Tells of what was forbidden, by the names of fields; of an operation that is forbidden as a whole, by its kind. */
export function tellDenials(
  options: ApiServerOptions,
  context: ApiContext,
  errors: readonly GraphQLError[] = [],
): void {
  const { principal, requestId, address } = context;
  for (const { nodes, path, originalError, extensions } of errors) {
    const code = isCodedError(originalError) ? originalError.code : extensions?.['code'];
    if (code !== 'FORBIDDEN') continue;
    const [node] = nodes ?? [];
    const field = node?.kind === Kind.FIELD ? node.name.value : path?.[0];
    const name = field ?? (node?.kind === Kind.OPERATION_DEFINITION ? node.operation : 'operation');
    options.onDenied?.(principal, String(name), { requestId, ...(address !== undefined && { address }) });
  }
}

/** An error of a request as one of its answer. */
export function asRefusal(error: Error): GraphQLError {
  return new GraphQLError(error.message, { originalError: error });
}
