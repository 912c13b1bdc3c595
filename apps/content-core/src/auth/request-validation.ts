import { ValidationPipe } from '@nestjs/common';
import { apiError, type CodedError } from '@atomo-cc/kernel';

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
