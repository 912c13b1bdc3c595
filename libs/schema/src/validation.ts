import { isEmail } from 'class-validator';
import { inputName, type FieldDefinition, type ModelDefinition } from './model.js';

/** A value as it is stored in an event and a row. */
export type FieldValue = string | number | boolean | null;
/** The values of a record by the name under which they are written (`companyId` for relation `company`). */
export type RecordValues = Readonly<Record<string, FieldValue>>;

/** One broken rule. `path` names the field; `message` is a sentence for the person who filled it in. */
export interface InputFault {
  readonly path: string;
  readonly message: string;
}

/**
 * Checks an input against its model.
 * @param mode `create` demands the required fields; `update` takes any subset and refuses to empty a required one
 * @returns the values as they are stored (e-mail addresses trimmed and in lower case), or all faults at once
 */
export function validateInput(
  model: ModelDefinition,
  input: Readonly<Record<string, unknown>>,
  mode: 'create' | 'update',
): { values: RecordValues; faults: readonly InputFault[] } {
  const values: Record<string, FieldValue> = {};
  const faults: InputFault[] = [];
  const known = new Map(model.fields.map((field) => [inputName(field), field]));
  for (const name of Object.keys(input)) {
    if (!known.has(name)) faults.push({ path: name, message: `${model.name} has no field ${name}.` });
  }
  for (const [name, field] of known) {
    const given = Object.hasOwn(input, name) ? input[name] : undefined;
    if (given === undefined && mode === 'update') continue;
    if (given === undefined || given === null) {
      if (field.required) faults.push({ path: name, message: `${name} is required.` });
      else if (given === null) values[name] = null;
      continue;
    }
    const checked = checkValue(field, name, given);
    if ('message' in checked) faults.push({ path: name, message: checked.message });
    else values[name] = checked.value;
  }
  return { values, faults };
}

type Checked = { value: FieldValue } | { message: string };

function checkValue(field: FieldDefinition, name: string, given: unknown): Checked {
  switch (field.type) {
    case 'text':
      return checkText(field, name, given);
    case 'email': {
      const checked = checkText(field, name, typeof given === 'string' ? given.trim().toLowerCase() : given);
      if ('message' in checked || isEmail(checked.value)) return checked;
      return { message: `${name} is no e-mail address, such as ada@example.com.` };
    }
    case 'number':
      if (typeof given !== 'number' || !Number.isFinite(given)) return { message: `${name} is no number.` };
      if (field.min !== null && given < field.min) return { message: `${name} is below ${field.min}.` };
      if (field.max !== null && given > field.max) return { message: `${name} is above ${field.max}.` };
      return { value: given };
    case 'boolean':
      return typeof given === 'boolean' ? { value: given } : { message: `${name} is neither true nor false.` };
    case 'date':
      return isCalendarDate(given) ? { value: given } : { message: `${name} is no date, such as 2026-11-21.` };
    case 'enum':
      if (typeof given === 'string' && field.values!.includes(given)) return { value: given };
      return { message: `${name} is none of ${field.values!.join(', ')}.` };
    case 'relation':
      if (typeof given === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(given))
        return { value: given };
      return { message: `${name} is no id of a ${field.target}.` };
  }
}

function checkText(field: FieldDefinition, name: string, given: unknown): Checked {
  if (typeof given !== 'string') return { message: `${name} is no text.` };
  if (field.required && given.trim() === '') return { message: `${name} is required.` };
  if (field.maxLength !== null && given.length > field.maxLength) {
    return { message: `${name} has ${given.length} characters; at most ${field.maxLength} are allowed.` };
  }
  // Postgres' text and jsonb hold neither; storing something else than was sent would be a silent change.
  if (given.includes('\0')) return { message: `${name} has a NUL character, which cannot be stored.` };
  if (!given.isWellFormed()) return { message: `${name} has half a surrogate pair, which is no character.` };
  return { value: given };
}

/** True for a day that exists, written as ISO 8601 has it, from year 1 to 9999. */
export function isCalendarDate(value: unknown): value is string {
  if (typeof value !== 'string' || !/^\d{4}-\d{2}-\d{2}$/.test(value) || value.startsWith('0000')) return false;
  const parsed = new Date(`${value}T00:00:00Z`);
  return !Number.isNaN(parsed.getTime()) && parsed.toISOString().startsWith(value);
}
