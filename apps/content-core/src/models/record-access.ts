import { apiError, type CodedError, type TenantId } from '@atomo-cc/kernel';
import type { Principal } from '@atomo-cc/access';
import {
  accessOfRole,
  conditionFields,
  fieldNamed,
  holds,
  inputName,
  modelNamed,
  type Grant,
  type InputFault,
  type ModelDefinition,
  type RecordValues,
  type RoleAccess,
  type SchemaDefinition,
} from '@atomo-cc/schema';

/** Who asks: one of a tenant, who sees and changes of its records what the rules of a role leave. */
export interface Reader {
  readonly access: RoleAccess;
  readonly tenant: TenantId;
  /** Null of a machine, which no rule about users can mean. */
  readonly userId: string | null;
}

/** Who a request comes from, by the rules of the role that they have now. */
export function readerOf(schema: SchemaDefinition, { tenantId, userId, role }: Principal): Reader {
  return { access: accessOfRole(schema, role), tenant: tenantId, userId: userId ?? null };
}

/** Whether a role's rule, if there is one, looks at the records themselves. */
export function seesSome({ access }: Reader, model: ModelDefinition): boolean {
  return access.right(model, 'read')?.where !== null;
}

/**
 * Whether a record with these values may be seen: what the compiled condition of a read decides of its row.
 * @param values by the names under which fields are written
 */
export function maySee(reader: Reader, model: ModelDefinition, values: RecordValues): boolean {
  return meets(reader, model, reader.access.right(model, 'read'), values);
}

function meets(
  { access, userId }: Reader,
  { name }: ModelDefinition,
  right: Grant | null,
  values: RecordValues,
): boolean {
  if (!right) return false;
  if (right.where === null) return true;
  return holds(modelNamed(access.schema, name), right.where, values, { id: userId, role: access.role });
}

/** A change of a record as its rules look at it. */
export interface RecordChange {
  readonly operation: 'create' | 'update' | 'delete';
  readonly model: ModelDefinition;
  /** The record as it is; null of a new one, and of one that `maySee` says no about. */
  readonly before: RecordValues | null;
  /** As it becomes; null of one that is deleted. */
  readonly after: RecordValues | null;
  /** The names that the caller has written. */
  readonly given: Iterable<string>;
}

/**
 * Why a change may not be made, or null: the fields that are written, and the rule of the operation on the record as it is and as it
 * becomes. To be asked under the record's lock, of a record that may be seen: whoever may not see one is told that there is none.
 */
export function changeRefusal(reader: Reader, change: RecordChange): CodedError | null {
  const { operation, model, before, after, given } = change;
  const right = reader.access.right(model, operation);
  if (!right) return apiError('FORBIDDEN', `You may not ${operation} a ${model.name}.`);
  if (operation !== 'delete') {
    const may = reader.access.writes(model, operation);
    const faults = [...given].filter((name) => !may.has(name)).map((path) => ({ path, message: NOT_WRITTEN(path) }));
    if (faults.length > 0) {
      return apiError('FORBIDDEN', faults.map(({ message }) => message).join(' '), { faults });
    }
  }
  if (before && !meets(reader, model, right, before))
    return apiError('FORBIDDEN', `You may not ${operation} this ${model.name}.`);
  if (after && !meets(reader, model, right, after))
    return apiError('FORBIDDEN', `You may not ${operation} a ${model.name} with these values.`);
  return null;
}

/**
 * A refusal as the caller may be told it: a fault that is about a field which they neither read nor write says no more than that
 * there is one, and so does a rule that looks at such a field.
 */
export function toldRefusal({ access }: Reader, model: ModelDefinition, refusal: CodedError): CodedError {
  const { faults } = (refusal.details ?? {}) as { faults?: readonly InputFault[] };
  if (!faults) return refusal;
  const readable = access.reads(model)?.fields.map(inputName) ?? [];
  const known = new Set([
    '',
    'version',
    ...readable,
    ...access.writes(model, 'create'),
    ...access.writes(model, 'update'),
  ]);
  const looksFurther = model.checks.filter(({ condition }) =>
    conditionFields(condition).some((field) => !known.has(inputName(fieldNamed(model, field)))),
  );
  const isKnown = ({ path }: InputFault) => known.has(path.split(/[.[]/, 1)[0]!);
  // What two fields break together is said of both: it is hidden where one of them is.
  const hidden = new Set([...looksFurther, ...faults.filter((fault) => !isKnown(fault))].map(({ message }) => message));
  if (hidden.size === 0) return refusal;
  const shown = faults.filter((fault) => isKnown(fault) && !hidden.has(fault.message));
  if (shown.length === faults.length) return refusal;
  const told = [...shown, { path: '', message: `That breaks a rule of ${model.name} that you may not know.` }];
  return apiError('VALIDATION_ERROR', told.map(({ message }) => message).join(' '), { faults: told });
}

const NOT_WRITTEN = (path: string) => `${path}: you may not write it.`;
