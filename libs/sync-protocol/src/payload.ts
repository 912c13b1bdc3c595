import { getMetadataStorage, validateSync, ValidateBy, type ValidationError } from 'class-validator';
import { contentFault, textFault } from './content.js';
import { syncError } from './errors.js';
import { pathFault } from './paths.js';

/** The field is a path under the rules of `paths.ts`. */
export const IsSyncPath = () => byFault('isSyncPath', pathFault);
/** The field is a file's content under the rules of `content.ts`. */
export const IsContent = () => byFault('isContent', contentFault);
/** The field is a text that Postgres can store. */
export const IsStorableText = () => byFault('isStorableText', textFault);

function byFault(name: string, faultOf: (value: unknown) => string | null): PropertyDecorator {
  return ValidateBy({
    name,
    validator: {
      validate: (value) => faultOf(value) === null,
      defaultMessage: (argument) => `${argument!.property} ${faultOf(argument!.value)}`,
    },
  });
}

/**
 * Reads what a client sent as an instance of `shape`. Only the declared fields are taken, and only if they are the
 * payload's own: whatever else it holds (other fields, `__proto__`, a thousand levels of nesting) is never walked.
 * @throws CodedError VALIDATION_ERROR; the message names the first faulty field and never repeats what was sent
 */
export function parsePayload<Shape extends object>(shape: new () => Shape, payload: unknown): Shape {
  if (typeof payload !== 'object' || payload === null || Array.isArray(payload)) {
    throw syncError('VALIDATION_ERROR', 'The payload must be an object.');
  }
  const parsed = new shape();
  for (const field of fieldsOf(shape)) {
    if (Object.hasOwn(payload, field)) Reflect.set(parsed, field, Reflect.get(payload, field));
  }
  const [fault] = validateSync(parsed, { stopAtFirstError: true, validationError: { target: false, value: false } });
  if (fault) throw syncError('VALIDATION_ERROR', `${sentence(fault)}.`, { field: fault.property });
  return parsed;
}

function sentence(fault: ValidationError): string {
  const [message = `${fault.property} is not valid`] = Object.values(fault.constraints ?? {});
  return message.charAt(0).toUpperCase() + message.slice(1);
}

const fields = new WeakMap<object, readonly string[]>();

function fieldsOf(shape: new () => object): readonly string[] {
  let found = fields.get(shape);
  if (!found) {
    const rules = getMetadataStorage().getTargetValidationMetadatas(shape, '', false, false);
    found = [...new Set(rules.map((rule) => rule.propertyName))];
    fields.set(shape, found);
  }
  return found;
}
