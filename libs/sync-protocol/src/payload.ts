import {
  getMetadataStorage,
  validateSync,
  ValidateBy,
  type ValidationError,
  type ValidationOptions,
} from 'class-validator';
import { contentFault, textFault } from './content.js';
import { syncError } from './errors.js';
import { isContentHash } from './hashes.js';
import { PART_LIMIT_BYTES } from './limits.js';
import { pathFault } from './paths.js';

const IS_PATH = 'isSyncPath';

/** The field is a path under the rules of `paths.ts`; it is read in Unicode form NFC. */
export const IsSyncPath = (options?: ValidationOptions) =>
  byFault(IS_PATH, (value) => pathFault(value)?.message ?? null, options);
/** The field is a ContentHash. */
export const IsContentHash = () => byFault('isContentHash', hashFault);
/** The field is a list of ContentHashes. */
export const IsContentHashes = () =>
  byFault('isContentHashes', (value) =>
    Array.isArray(value) && value.every(isContentHash) ? null : 'must be a list of sha256: and 64 hex digits',
  );
/** The field is a whole number in a query string. */
export const IsIntText = () =>
  byFault('isIntText', (value) =>
    typeof value === 'string' && /^\d{1,15}$/.test(value) ? null : 'must be a whole number from 0 on',
  );
/** The field is the bytes of one part, a binary attachment. */
export const IsPartBytes = () =>
  byFault('isPartBytes', (value) => {
    if (!(value instanceof Uint8Array)) return 'must be binary';
    return value.length > PART_LIMIT_BYTES ? `must have at most ${PART_LIMIT_BYTES} bytes` : null;
  });
/** The field is a file's content under the rules of `content.ts`. */
export const IsContent = () => byFault('isContent', contentFault);
/** The field is a text that Postgres can store. */
export const IsStorableText = () => byFault('isStorableText', textFault);

function hashFault(value: unknown): string | null {
  return isContentHash(value) ? null : 'must be sha256: and 64 hex digits';
}

function byFault(
  name: string,
  faultOf: (value: unknown) => string | null,
  options?: ValidationOptions,
): PropertyDecorator {
  return ValidateBy(
    {
      name,
      validator: {
        validate: (value) => faultOf(value) === null,
        defaultMessage: (argument) => `${argument!.property} ${faultOf(argument!.value)}`,
      },
    },
    options,
  );
}

/**
 * Reads what a client sent as an instance of `shape`. Only the declared fields are taken, and only if they are the
 * payload's own: whatever else it holds (other fields, `__proto__`, a thousand levels of nesting) is never walked.
 * Paths come out in Unicode form NFC.
 * @throws CodedError PATH_INVALID, PATH_NOT_PORTABLE, or VALIDATION_ERROR for all else; the message names the first faulty field and never repeats what was sent
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
  if (fault) {
    const path = IS_PATH in (fault.constraints ?? {}) ? pathFault(Reflect.get(parsed, fault.property)) : null;
    const reason = path && { reason: path.reason };
    throw syncError(path?.code ?? 'VALIDATION_ERROR', `${sentence(fault)}.`, { field: fault.property, ...reason });
  }
  for (const field of pathsOf(shape)) {
    const path: unknown = Reflect.get(parsed, field);
    if (typeof path === 'string') Reflect.set(parsed, field, path.normalize('NFC'));
  }
  return parsed;
}

function sentence(fault: ValidationError): string {
  const [message = `${fault.property} is not valid`] = Object.values(fault.constraints ?? {});
  return message.charAt(0).toUpperCase() + message.slice(1);
}

interface Fields {
  readonly all: readonly string[];
  readonly paths: readonly string[];
}

const known = new WeakMap<object, Fields>();

function fieldsOf(shape: new () => object): readonly string[] {
  return describe(shape).all;
}

function pathsOf(shape: new () => object): readonly string[] {
  return describe(shape).paths;
}

function describe(shape: new () => object): Fields {
  let found = known.get(shape);
  if (!found) {
    const rules = getMetadataStorage().getTargetValidationMetadatas(shape, '', false, false);
    found = {
      all: [...new Set(rules.map((rule) => rule.propertyName))],
      paths: rules.filter((rule) => rule.name === IS_PATH).map((rule) => rule.propertyName),
    };
    known.set(shape, found);
  }
  return found;
}
