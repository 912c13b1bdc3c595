import { type ArgumentsHost, Catch, type ExceptionFilter, Inject, ValidationPipe } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { apiError, type CodedError } from '@atomo-cc/kernel';
import { LOGGER, restError } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';

/** Answers every error of a route as `{error: {code, message, details}}`; what is a fault of ours goes to the log. */
@Catch()
export class RestErrorFilter implements ExceptionFilter {
  constructor(@Inject(LOGGER) private readonly logger: Logger) {}

  catch(error: unknown, host: ArgumentsHost): void {
    const request = host.switchToHttp().getRequest<FastifyRequest>();
    const reply = host.switchToHttp().getResponse<FastifyReply>();
    const { status, body } = restError(error);
    if (status >= 500) this.logger.error({ req: request, err: loggedError(error) }, 'a request failed');
    if (reply.sent) return;
    if (status === 401) void reply.header('www-authenticate', 'Bearer');
    void reply.status(status).send(body);
  }
}

/** Only these four: a database error also carries its parameters, which may be personal or secret. */
function loggedError(error: unknown) {
  if (!(error instanceof Error)) return { type: typeof error, message: String(error) };
  const { code } = error as { code?: unknown };
  return { type: error.name, message: error.message, stack: error.stack, code };
}

/** Checks every body, query and parameter that has a class; what the class does not name is dropped. */
export function requestValidation(): ValidationPipe {
  return new ValidationPipe({
    transform: true,
    whitelist: true,
    // The input may be a password: it goes into no error, so into no answer and no log.
    validationError: { target: false, value: false },
    exceptionFactory: (faults) => invalidInput(faults),
  });
}

interface InputFault {
  readonly property: string;
  readonly constraints?: Readonly<Record<string, string>>;
  readonly children?: readonly InputFault[];
}

function invalidInput(faults: readonly InputFault[]): CodedError {
  const [first] = faults.flatMap((fault) => leaves(fault, fault.property));
  return first
    ? apiError('VALIDATION_ERROR', `${first.message}.`, { field: first.field })
    : apiError('VALIDATION_ERROR', 'The body is not what this route takes.');
}

function leaves(fault: InputFault, field: string): { field: string; message: string }[] {
  const own = Object.values(fault.constraints ?? {}).map((message) => ({ field, message }));
  return [...own, ...(fault.children ?? []).flatMap((child) => leaves(child, `${field}.${child.property}`))];
}
