import { systemClock, type Clock } from '@atomo-cc/kernel';
import { isEmail } from 'class-validator';
import { compareDecimals, passes } from './condition.js';
import {
  inputName,
  isDemanded,
  type BlockDefinition,
  type FieldDefinition,
  type FieldRule,
  type FieldValue,
  type JsonValue,
  type ModelDefinition,
  type PatternDefinition,
  type RecordValues,
} from './model.js';
import { compilePattern, type CompiledPattern } from './pattern.js';

/** One broken rule. `path` names the place, `notes.2.text`; `message` is a sentence for the person who filled it in. */
export interface InputFault {
  readonly path: string;
  readonly message: string;
}

/** Blocks in one field, counted through all levels: a page that someone writes by hand has a few hundred. */
export const MAX_BLOCKS = 1_000;
/** How deep blocks may hold blocks; editors and people lose the thread earlier. */
export const MAX_BLOCK_DEPTH = 8;
/** Of a blocks field as JSON in UTF-8. Events carry it whole, and every reader of a list may ask for it. */
export const MAX_BLOCKS_BYTES = 1_048_576;
/** Of a json field, as JSON in UTF-8: settings and small answers; larger data is a file. */
export const MAX_JSON_BYTES = 65_536;
/** Levels of a json field; Postgres, GraphQL and recursion all stand more, honest data does not need it. */
export const MAX_JSON_DEPTH = 32;
/** Ids in the list of a relation; each costs a row and a lock. Larger sets are a model of their own. */
export const MAX_LINKS = 1_000;
/** Faults that are told at once; who made more sees the rest when these are mended. */
export const MAX_FAULTS = 100;
/** Characters of a decimal before it is looked at: far more than any precision allows. */
const MAX_DECIMAL_LENGTH = 100;
/** Of a name that somebody else chose, in a message. */
const MAX_SHOWN = 100;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/**
 * Checks an input against its model. Never throws, whatever the input is.
 * @param mode `create` demands the required fields, fills in defaults and slugs, and decides the model's checks; `update` takes any
 *   subset and refuses to empty a required field. Its checks are decided by `checkRecord`, once the record as a whole is known
 * @returns the values as they are stored, or all faults at once. E-mail addresses are trimmed and in lower case, slugs in lower case
 *   and NFC, URLs trimmed, decimals at their scale, moments in UTC, blocks without empty fields, lists of ids sorted; all else is
 *   kept as it came
 */
export function validateInput(
  model: ModelDefinition,
  input: Readonly<Record<string, unknown>>,
  mode: 'create' | 'update',
  { clock = systemClock }: { readonly clock?: Clock } = {},
): { values: RecordValues; faults: readonly InputFault[] } {
  const faults = new Faults();
  if (!isPlainObject(input))
    return { values: {}, faults: [{ path: '', message: 'The input is no object of fields.' }] };
  const checking: Checking = { blocks: model.blocks, faults, clock };
  const values: Record<string, FieldValue> = {};
  const known = new Map(model.fields.map((field) => [inputName(field), field]));
  const links = model.relations.filter((relation) => relation.input !== null);
  const linkNames = new Set(links.map(({ input: name }) => name!));
  for (const name of Object.keys(input)) {
    if (!known.has(name) && !linkNames.has(name)) faults.add(shown(name), unknownField(model, name));
  }
  for (const [name, field] of known) {
    const given = Object.hasOwn(input, name) ? input[name] : undefined;
    if (given === undefined && mode === 'update') continue;
    const value = given === undefined ? defaultOf(field, clock) : given;
    if (value === undefined || value === null) {
      // A slug that is made from another field comes when that field is known.
      const isMissing = mode === 'update' || value === null ? field.required : isDemanded(field);
      if (isMissing && !(mode === 'create' && field.slug?.from)) {
        faults.add(name, field.messages?.required ?? `${name} is required.`);
      } else if (value === null && !field.required) values[name] = null;
      continue;
    }
    const checked = checkField(checking, field, name, value);
    if (checked !== undefined) values[name] = checked;
  }
  for (const { input: name, target } of links) {
    const given = Object.hasOwn(input, name!) ? input[name!] : undefined;
    if (given === undefined) continue;
    const checked = checkLinks(checking, name!, target, given);
    if (checked) values[name!] = checked;
  }
  if (mode === 'create') {
    makeSlugs(model, values, faults);
    for (const fault of checkRecord(model, values)) faults.add(fault.path, fault.message);
  }
  return { values, faults: faults.all };
}

/** The checks of the model that a whole record breaks. What is missing in `values` has no value. */
export function checkRecord(model: ModelDefinition, values: RecordValues): InputFault[] {
  return model.checks
    .filter(({ condition }) => !passes(model, condition, values))
    .map(({ field, message }) => {
      const named = model.fields.find((candidate) => candidate.name === field);
      return { path: named ? inputName(named) : field, message };
    });
}

/** Faults in the order they are found, no more than anyone reads. */
class Faults {
  readonly all: InputFault[] = [];

  add(path: string, message: string): undefined {
    if (this.all.length < MAX_FAULTS) this.all.push({ path, message });
  }
}

/** What checking a value needs to know, and where it says what is wrong. */
interface Checking {
  readonly blocks: readonly BlockDefinition[];
  readonly faults: Faults;
  readonly clock: Clock;
}

function unknownField(model: ModelDefinition, name: string): string {
  const told = `${model.name} has no field ${shown(name)}`;
  const relation = model.fields.find((field) => field.name === name);
  if (relation) return `${told} to write: give the id as ${inputName(relation)}.`;
  if (model.computed.some((field) => field.name === name)) return `${told} to write: it is computed from others.`;
  const link = model.relations.find((candidate) => candidate.name === name);
  if (link) {
    return link.input
      ? `${told} to write: give the ids as ${link.input}.`
      : `${told} to write: write the other records.`;
  }
  return `${told}.`;
}

const shown = (name: string) => (name.length > MAX_SHOWN ? `${name.slice(0, MAX_SHOWN)}…` : name);

/** The default of a field, or undefined where it has none. */
function defaultOf(field: FieldDefinition, clock: Clock): unknown {
  if (field.default === null) return undefined;
  if ('value' in field.default) return field.default.value;
  const now = new Date(clock.now()).toISOString();
  return field.type === 'date' ? now.slice(0, 10) : now;
}

function makeSlugs(model: ModelDefinition, values: Record<string, FieldValue>, faults: Faults): void {
  for (const field of model.fields) {
    const from = field.slug?.from;
    if (!from || (values[field.name] ?? null) !== null || faults.all.some(({ path }) => path === field.name)) continue;
    const source = values[from];
    const made = typeof source === 'string' ? slugOf(source, field.maxLength ?? Infinity) : '';
    if (made) values[field.name] = made;
    else if (field.required && typeof source === 'string')
      faults.add(field.name, `${field.name} cannot be made from ${from}, which has no letter or digit. Give one.`);
    else if (field.required && !faults.all.some(({ path }) => path === from))
      faults.add(field.name, field.messages?.required ?? `${field.name} is required.`);
  }
}

/** `Crème brûlée, now!` → `creme-brulee-now`. Letters of all scripts stay; Latin ones lose their accents. Empty when there are none. */
export function slugOf(text: string, maxLength: number): string {
  const words = text
    .normalize('NFKD')
    .replaceAll(/(\p{Script=Latin})[\u0300-\u036f]+/gu, '$1')
    .normalize('NFC')
    .toLowerCase()
    .normalize('NFC')
    .replaceAll(/['’]/g, '')
    .split(/[^\p{L}\p{N}\p{M}]+/u)
    .filter((word) => /^[\p{L}\p{N}]/u.test(word));
  let made = '';
  for (const word of words) {
    const longer = made === '' ? word : `${made}-${word}`;
    if (longer.length > maxLength) break;
    made = longer;
  }
  return made || (words[0] ?? '').slice(0, maxLength).toWellFormed().replaceAll('\uFFFD', '');
}

const SLUG = /^[\p{L}\p{N}][\p{L}\p{N}\p{M}]*(-[\p{L}\p{N}][\p{L}\p{N}\p{M}]*)*$/u;

/**
 * Checks one value that is there. Used for inputs and for the values that a schema itself gives, such as defaults.
 * @returns what is stored, or undefined after a fault was added
 */
function checkField(checking: Checking, field: FieldDefinition, path: string, given: unknown): FieldValue | undefined {
  const { faults } = checking;
  switch (field.type) {
    case 'text':
    case 'richText':
      return checkText(faults, field, path, given);
    case 'email': {
      const text = checkText(faults, field, path, typeof given === 'string' ? given.trim().toLowerCase() : given);
      if (text === undefined || isEmail(text)) return text;
      return faults.add(path, `${path} is no e-mail address, such as ada@example.com.`);
    }
    case 'url': {
      const text = checkText(faults, field, path, typeof given === 'string' ? given.trim() : given);
      if (text === undefined || isWebAddress(text)) return text;
      return faults.add(path, `${path} is no web address, such as https://example.com/page.`);
    }
    case 'slug': {
      const slug = typeof given === 'string' ? given.trim().toLowerCase().normalize('NFC') : given;
      const text = checkText(faults, field, path, slug);
      if (text === undefined || SLUG.test(text)) return text;
      const better = slugOf(text, field.maxLength ?? Infinity) || 'my-first-post';
      return faults.add(path, `${path} has letters and digits, joined by single hyphens, such as ${better}.`);
    }
    case 'integer':
      if (typeof given !== 'number' || !Number.isInteger(given)) return faults.add(path, `${path} is no whole number.`);
      return checkBounds(faults, field, path, given);
    case 'number':
      if (typeof given !== 'number' || !Number.isFinite(given)) return faults.add(path, `${path} is no number.`);
      return checkBounds(faults, field, path, given);
    case 'decimal':
      return checkDecimal(faults, field, path, given);
    case 'boolean':
      return typeof given === 'boolean' ? given : faults.add(path, `${path} is neither true nor false.`);
    case 'date':
      return isCalendarDate(given) ? given : faults.add(path, `${path} is no date, such as 2026-11-21.`);
    case 'datetime':
      return (
        readMoment(given) ?? faults.add(path, `${path} is no moment with its offset, such as 2026-11-21T07:25:18Z.`)
      );
    case 'enum':
      if (typeof given === 'string' && field.values!.includes(given)) return given;
      return faults.add(path, `${path} is none of ${field.values!.join(', ')}.`);
    case 'relation':
      return typeof given === 'string' && UUID.test(given)
        ? given
        : faults.add(path, `${path} is no id of a ${field.target}.`);
    case 'file':
      return typeof given === 'string' && UUID.test(given)
        ? given
        : faults.add(path, `${path} is no id of an uploaded file.`);
    case 'geoPoint':
      return checkGeoPoint(faults, path, given);
    case 'json':
      return checkJson(faults, path, given);
    case 'blocks':
      return checkBlocksField(checking, field, path, given);
  }
}

/** Checks a value that a schema gives, such as a default. @returns what is stored, or the sentences that say why it cannot be */
export function checkValue(
  owner: { readonly blocks: readonly BlockDefinition[] },
  field: FieldDefinition,
  path: string,
  given: unknown,
): { readonly value: FieldValue } | { readonly faults: readonly InputFault[] } {
  const faults = new Faults();
  const value = checkField({ blocks: owner.blocks, faults, clock: systemClock }, field, path, given);
  return value === undefined || faults.all.length > 0 ? { faults: faults.all } : { value };
}

function checkText(faults: Faults, field: FieldDefinition, path: string, given: unknown): string | undefined {
  if (typeof given !== 'string') return faults.add(path, `${path} is no text.`);
  const say = (rule: FieldRule, usual: string) => faults.add(path, field.messages?.[rule] ?? usual);
  if (field.required && given.trim() === '') return say('required', `${path} is required.`);
  const { length } = given;
  if (field.maxLength !== null && length > field.maxLength) {
    return say('maxLength', `${path} has ${length} characters; at most ${field.maxLength} are allowed.`);
  }
  if (field.minLength !== null && length < field.minLength) {
    return say('minLength', `${path} has ${length} characters; at least ${field.minLength} are needed.`);
  }
  const unstorable = whyUnstorable(given);
  if (unstorable) return faults.add(path, `${path} has ${unstorable}.`);
  if (field.pattern !== null && !matches(field.pattern, given))
    return say('pattern', `${path} does not look like ${field.pattern.source}.`);
  return given;
}

/** Postgres' text and jsonb hold neither; storing something else than was sent would be a silent change. */
function whyUnstorable(text: string): string | null {
  if (text.includes('\0')) return 'a NUL character, which cannot be stored';
  return text.isWellFormed() ? null : 'half a surrogate pair, which is no character';
}

const compiled = new WeakMap<PatternDefinition, CompiledPattern>();

function matches(pattern: PatternDefinition, text: string): boolean {
  let known = compiled.get(pattern);
  if (!known) compiled.set(pattern, (known = compilePattern(pattern)));
  // A pattern that cannot be used is a fault of the schema, and was refused there.
  return 'fault' in known || known.matches(text);
}

function isWebAddress(text: string): boolean {
  // The parser drops white space and control characters inside, so what is stored would be another address than what is read.
  if (/[\s\u0000-\u001f\u007f]/.test(text) || !/^https?:\/\//i.test(text)) return false;
  return URL.canParse(text);
}

function checkBounds(faults: Faults, field: FieldDefinition, path: string, given: number): number | undefined {
  const { min, max, messages } = field;
  if (min !== null && given < min) return faults.add(path, messages?.min ?? `${path} is below ${min}.`);
  if (max !== null && given > max) return faults.add(path, messages?.max ?? `${path} is above ${max}.`);
  // JSON has no negative zero; kept, it would be different from what is read back.
  return given === 0 ? 0 : given;
}

function checkDecimal(faults: Faults, field: FieldDefinition, path: string, given: unknown): string | undefined {
  const text = typeof given === 'number' ? String(given) : given;
  const isShort = typeof text === 'string' && text.length <= MAX_DECIMAL_LENGTH;
  const found = isShort ? /^([+-]?)0*(\d+)(?:\.(\d+))?$/.exec(text) : null;
  if (!found)
    return faults.add(path, `${path} is no decimal number, such as ${'12'.concat(field.scale ? '.50' : '')}.`);
  const [scale, precision] = [field.scale!, field.precision!];
  const [, sign, whole = '', fraction = ''] = found;
  const kept = fraction.replace(/0+$/, '');
  if (kept.length > scale) {
    return faults.add(path, `${path} has ${kept.length} digits behind the point; at most ${scale} are allowed.`);
  }
  if (whole !== '0' && whole.length > precision - scale) {
    return faults.add(
      path,
      `${path} has ${whole.length} digits before the point; at most ${precision - scale} are allowed.`,
    );
  }
  const digits = scale === 0 ? whole : `${whole}.${kept.padEnd(scale, '0')}`;
  const value = sign === '-' && /[1-9]/.test(digits) ? `-${digits}` : digits;
  const { min, max, messages } = field;
  if (min !== null && compareDecimals(value, String(min)) < 0)
    return faults.add(path, messages?.min ?? `${path} is below ${min}.`);
  if (max !== null && compareDecimals(value, String(max)) > 0)
    return faults.add(path, messages?.max ?? `${path} is above ${max}.`);
  return value;
}

function checkGeoPoint(faults: Faults, path: string, given: unknown): FieldValue | undefined {
  const { lat, lng, ...more } = isPlainObject(given) ? given : {};
  const isDegrees = (value: unknown, most: number): value is number =>
    typeof value === 'number' && Number.isFinite(value) && Math.abs(value) <= most;
  if (isDegrees(lat, 90) && isDegrees(lng, 180) && Object.keys(more).length === 0)
    return { lat: lat || 0, lng: lng || 0 };
  return faults.add(path, `${path} is no place, such as {lat: 48.21, lng: 16.37}: lat is -90 to 90, lng -180 to 180.`);
}

function checkJson(faults: Faults, path: string, given: unknown): JsonValue | undefined {
  const meter = { left: MAX_JSON_BYTES };
  const copied = copyJson(given, 0, meter);
  if ('wrong' in copied) return faults.add(path, `${path} ${copied.wrong}.`);
  return sizeOf(copied.copy) <= MAX_JSON_BYTES ? copied.copy : faults.add(path, `${path} ${TOO_LARGE}.`);
}

const TOO_LARGE = `is larger than ${MAX_JSON_BYTES} bytes as JSON`;
const sizeOf = (value: JsonValue) => new TextEncoder().encode(JSON.stringify(value)).length;

/** A copy that holds JSON and nothing else. `meter` ends it early: characters are never more than the bytes they become. */
function copyJson(given: unknown, depth: number, meter: { left: number }): { copy: JsonValue } | { wrong: string } {
  meter.left -= typeof given === 'string' ? given.length + 2 : 1;
  if (meter.left < 0) return { wrong: TOO_LARGE };
  if (depth > MAX_JSON_DEPTH) return { wrong: `is nested deeper than ${MAX_JSON_DEPTH} levels` };
  if (given === null || typeof given === 'boolean') return { copy: given };
  if (typeof given === 'number')
    return Number.isFinite(given) ? { copy: given || 0 } : { wrong: 'has a number that JSON cannot write' };
  if (typeof given === 'string') {
    const unstorable = whyUnstorable(given);
    return unstorable ? { wrong: `has ${unstorable}` } : { copy: given };
  }
  if (Array.isArray(given)) {
    const copy: JsonValue[] = [];
    for (let at = 0; at < given.length; at += 1) {
      const member = copyJson(given[at], depth + 1, meter);
      if ('wrong' in member) return member;
      copy.push(member.copy);
    }
    return { copy };
  }
  if (!isPlainObject(given)) return { wrong: 'has something that JSON cannot write' };
  const entries: [string, JsonValue][] = [];
  for (const key of Object.keys(given)) {
    const unstorable = whyUnstorable(key);
    if (unstorable) return { wrong: `has a key with ${unstorable}` };
    // Code that copies it carelessly would change the prototype of its copy.
    if (key === '__proto__') return { wrong: 'has a key __proto__, which is not allowed' };
    meter.left -= key.length + 2;
    const member = copyJson(given[key], depth + 1, meter);
    if ('wrong' in member) return member;
    entries.push([key, member.copy]);
  }
  return { copy: Object.fromEntries(entries) };
}

/** An object of JSON, also one of GraphQL's, which have no prototype. */
function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === null || Object.prototype.toString.call(value) === '[object Object]';
}

function checkLinks(checking: Checking, path: string, target: string, given: unknown): string[] | undefined {
  const { faults } = checking;
  if (!Array.isArray(given)) return faults.add(path, `${path} is no list of ids; an empty list links to nothing.`);
  if (given.length > MAX_LINKS)
    return faults.add(path, `${path} has ${given.length} ids; at most ${MAX_LINKS} are allowed.`);
  const before = faults.all.length;
  for (const [at, id] of given.entries()) {
    if (typeof id !== 'string' || !UUID.test(id)) faults.add(`${path}.${at}`, `${path}.${at} is no id of a ${target}.`);
    else if (given.indexOf(id) < at) faults.add(`${path}.${at}`, `${path}.${at} stands there twice.`);
  }
  // A set, so that the same ids in another order are the same.
  return faults.all.length > before ? undefined : (given as string[]).toSorted();
}

function checkBlocksField(
  checking: Checking,
  field: FieldDefinition,
  path: string,
  given: unknown,
): FieldValue | undefined {
  const before = checking.faults.all.length;
  const checked = checkBlocks(checking, field, path, given, { depth: 1, count: { left: MAX_BLOCKS } });
  if (checked === undefined || checking.faults.all.length > before) return undefined;
  if (sizeOf(checked) <= MAX_BLOCKS_BYTES) return checked;
  return checking.faults.add(path, `${path} is larger than ${MAX_BLOCKS_BYTES} bytes as JSON.`);
}

/** How far down a list of blocks stands, and how many blocks its field may still have. */
interface Nesting {
  readonly depth: number;
  readonly count: { left: number };
}

function checkBlocks(
  checking: Checking,
  field: FieldDefinition,
  path: string,
  given: unknown,
  nesting: Nesting,
): JsonValue[] | undefined {
  const { faults } = checking;
  if (!Array.isArray(given)) return faults.add(path, `${path} is no list of blocks.`);
  if (nesting.depth > MAX_BLOCK_DEPTH)
    return faults.add(path, `${path} is nested deeper than ${MAX_BLOCK_DEPTH} levels of blocks.`);
  if (field.maxItems !== null && given.length > field.maxItems)
    return faults.add(path, `${path} has ${given.length} blocks; at most ${field.maxItems} are allowed.`);
  nesting.count.left -= given.length;
  if (nesting.count.left < 0)
    return faults.add(path, `${path} has more than ${MAX_BLOCKS} blocks, nested ones included.`);
  return Array.from(given, (item: unknown, at) => checkBlock(checking, field, `${path}.${at}`, item, nesting));
}

function checkBlock(
  checking: Checking,
  field: FieldDefinition,
  path: string,
  given: unknown,
  nesting: Nesting,
): JsonValue {
  const { faults, blocks, clock } = checking;
  if (!isPlainObject(given)) {
    faults.add(path, `${path} is no block, such as {type: "${field.blocks![0]}"}.`);
    return null;
  }
  const type = Object.hasOwn(given, 'type') ? given['type'] : undefined;
  const block = field.blocks!.includes(type as string) ? blocks.find(({ name }) => name === type) : undefined;
  if (!block) {
    faults.add(`${path}.type`, `${path}.type is none of ${field.blocks!.join(', ')}.`);
    return null;
  }
  const names = new Set(['type', ...block.fields.map(({ name }) => name)]);
  for (const name of Object.keys(given)) {
    if (!names.has(name)) faults.add(`${path}.${shown(name)}`, `${block.name} has no field ${shown(name)}.`);
  }
  const values: [string, JsonValue][] = [['type', block.name]];
  for (const inner of block.fields) {
    const innerPath = `${path}.${inner.name}`;
    const said = Object.hasOwn(given, inner.name) ? given[inner.name] : undefined;
    const value = said === undefined ? defaultOf(inner, clock) : said;
    if (value === undefined || value === null) {
      if (inner.required) faults.add(innerPath, inner.messages?.required ?? `${innerPath} is required.`);
      continue;
    }
    const checked =
      inner.type === 'blocks'
        ? checkBlocks(checking, inner, innerPath, value, { ...nesting, depth: nesting.depth + 1 })
        : checkField(checking, inner, innerPath, value);
    if (checked !== undefined) values.push([inner.name, checked]);
  }
  return Object.fromEntries(values);
}

/** True for a day that exists, written as ISO 8601 has it, from year 1 to 9999. */
export function isCalendarDate(value: unknown): value is string {
  if (typeof value !== 'string' || !/^\d{4}-\d{2}-\d{2}$/.test(value) || value.startsWith('0000')) return false;
  const parsed = new Date(`${value}T00:00:00Z`);
  return !Number.isNaN(parsed.getTime()) && parsed.toISOString().startsWith(value);
}

/** A moment written with its offset as ISO 8601 has it, in UTC with milliseconds; null for anything else. */
export function readMoment(value: unknown): string | null {
  const isIso =
    typeof value === 'string' && /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})$/.test(value);
  if (!isIso || !isCalendarDate(value.slice(0, 10)) || Number.isNaN(Date.parse(value))) return null;
  const utc = new Date(value).toISOString();
  // The offset may have carried it out of the years that Postgres reads.
  return isCalendarDate(utc.slice(0, 10)) ? utc : null;
}
