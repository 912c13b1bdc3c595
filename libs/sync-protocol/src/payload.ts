import {
  getMetadataStorage,
  validateSync,
  ValidateBy,
  type ValidationError,
  type ValidationOptions,
  ValidationTypes,
  type ValidatorConstraintInterface,
} from 'class-validator';
import type { ValidationMetadata } from 'class-validator/types/metadata/ValidationMetadata.js';
import { contentFault, textFault } from './content.js';
import { syncError } from './errors.js';
import { isContentHash } from './hashes.js';
import { PART_LIMIT_BYTES } from './limits.js';
import { pathFault } from './paths.js';

const IS_PATH = 'isSyncPath';
/** Of a refused list, to tell what is wrong: a list that may be sent is shorter, and a caller decides how long the others are. */
const ITEMS_LOOKED_AT = 100;

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

/** What is wrong with a value, or with the first item of a list that something is wrong with. */
function faultIn<Fault>(value: unknown, faultOf: (value: unknown) => Fault | null): Fault | null {
  const items: readonly unknown[] = Array.isArray(value) ? value.slice(0, ITEMS_LOOKED_AT) : [];
  for (const item of items) {
    const fault = faultOf(item);
    if (fault !== null) return fault;
  }
  return faultOf(value);
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
        defaultMessage: (argument) => `${argument!.property} ${faultIn(argument!.value, faultOf)}`,
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
  const [given, taken] = [payload as Record<string, unknown>, parsed as Record<string, unknown>];
  const { all, paths, rules } = describe(shape);
  for (const field of all) if (Object.hasOwn(given, field)) taken[field] = given[field];
  if (!rules?.every((rule) => holds(rule, parsed))) requireValid(parsed);
  for (const field of paths) {
    const path = taken[field];
    if (typeof path === 'string') taken[field] = path.normalize('NFC');
  }
  return parsed;
}

/** @throws as `parsePayload` does */
function requireValid(parsed: object): void {
  const [fault] = validateSync(parsed, { stopAtFirstError: true, validationError: { target: false, value: false } });
  if (!fault) return;
  const path = IS_PATH in (fault.constraints ?? {}) ? faultIn(Reflect.get(parsed, fault.property), pathFault) : null;
  const reason = path && { reason: path.reason };
  throw syncError(path?.code ?? 'VALIDATION_ERROR', `${sentence(fault)}.`, { field: fault.property, ...reason });
}

function sentence(fault: ValidationError): string {
  const [message = `${fault.property} is not valid`] = Object.values(fault.constraints ?? {});
  return message.charAt(0).toUpperCase() + message.slice(1);
}

/** A rule of a field, with the conditions under which it is asked: an optional field has one. */
interface Rule {
  readonly metadata: ValidationMetadata;
  readonly conditions: readonly ValidationMetadata[];
  readonly validators: readonly ValidatorConstraintInterface[];
}

/**
 * Whether what was sent keeps to the rule. Asked here, one rule after the other, because class-validator sorts them anew for
 * every object, which takes three times as long as asking; it has the last word on what seems to break one.
 */
function holds({ metadata, conditions, validators }: Rule, parsed: object): boolean {
  const { propertyName: property, constraints } = metadata;
  const value = (parsed as Record<string, unknown>)[property];
  const isAsked = conditions.every(({ constraints: [applies] }) => (applies as Condition)(parsed, value));
  const asked = { targetName: parsed.constructor.name, property, object: parsed, value, constraints };
  return !isAsked || validators.every((validator) => validator.validate(value, asked) === true);
}

type Condition = (object: object, value: unknown) => boolean;

interface Fields {
  readonly all: readonly string[];
  readonly paths: readonly string[];
  /** Null where a rule is of a kind that `holds` does not know. */
  readonly rules: readonly Rule[] | null;
}

const known = new WeakMap<object, Fields>();

function describe(shape: new () => object): Fields {
  let found = known.get(shape);
  if (!found) {
    const all = getMetadataStorage().getTargetValidationMetadatas(shape, '', false, false);
    found = {
      all: [...new Set(all.map((rule) => rule.propertyName))],
      paths: all.filter((rule) => rule.name === IS_PATH).map((rule) => rule.propertyName),
      rules: rulesOf(all),
    };
    known.set(shape, found);
  }
  return found;
}

function rulesOf(all: readonly ValidationMetadata[]): Rule[] | null {
  const conditions = all.filter(({ type }) => type === ValidationTypes.CONDITIONAL_VALIDATION);
  const asked = all.filter(({ type }) => type === ValidationTypes.CUSTOM_VALIDATION);
  const isPlain = ({ each, validateIf }: ValidationMetadata) => !each && !validateIf;
  if (all.length === 0 || conditions.length + asked.length < all.length || !asked.every(isPlain)) return null;
  return asked.map((metadata) => ({
    metadata,
    conditions: conditions.filter(({ propertyName }) => propertyName === metadata.propertyName),
    validators: getMetadataStorage()
      .getTargetValidatorConstraints(metadata.constraintCls)
      .map(({ instance }) => instance),
  }));
}
