import { attributes, Block, Field, Link, type Attributes } from './dsl.js';
import {
  isObject,
  isStrings,
  noModel,
  quoted,
  SHAPES,
  TEXTS,
  TIMES,
  unknownKeys,
  type Context,
  type Mutable,
} from './faults.js';
import {
  OWN_FIELDS,
  snakeCase,
  type BlockDefinition,
  type FieldDefinition,
  type FieldUi,
  type ModelDefinition,
  type ModelUi,
} from './model.js';
import { compilePattern } from './pattern.js';
import { checkValue } from './validation.js';

/** Words of the API's filters, and the columns that records have or may come to have; an author cannot declare them. */
const FILTER_WORDS = ['and', 'or', 'not'];
const TAKEN_FIELDS = [...OWN_FIELDS, 'tenantId', 'deletedAt'];

/** Types of the API that are no model; two types of one name would stop the boot without saying where. */
export const PLATFORM_TYPES = [
  'Query Mutation Subscription PageInfo Direction Event EventEdge EventConnection FieldChange',
  'AuditEntry AuditEdge AuditConnection AuditChange',
  'ApiToken ApiTokenScope CreatedApiToken CreateApiTokenInput TenantSecret',
  'Tenant TenantConnection TenantEdge CreateTenantInput FirstAdminInput TenantPlan TenantQuota',
  'Session User UserConnection UserEdge CreateUserInput UpdateUserInput',
  'Projection ProjectionMode ProjectionBuild ProjectionBuildState ProjectionBuildProgress',
  'HistoricalSyncJobConnection HistoricalSyncStatus HistoricalSyncError HistoricalSyncWait QuarantinedRecord',
  'MemorySearchInput MemorySearchMode MemorySearchResult MemoryHit MemoryRecord MemoryPerson MemoryMatch',
  'GraphNodeConnection GraphNodeType GraphNodeWithEdges GraphEdge GraphEdgeConnection',
  'String Int Float Boolean ID Date DateTime JSON Decimal GeoPoint GeoPointNear GeoPointBox',
].flatMap((line) => line.split(' '));

/** What GraphQL reads as something else than a value of an enum. */
const LITERALS = ['true', 'false', 'null'];
/** Postgres cuts names at 63 bytes; what is put before and behind them (`history_contact__b123456`) takes up to 17. */
export const MAX_NAME = 46;
/** Fields of a model or a block; Postgres has 1,600 columns a table, less for each that was dropped. */
export const MAX_FIELDS = 500;
/** The longest text an author may allow: an event carries it whole, and larger ones are files. */
const MAX_TEXT = 1_000_000;
/** Digits of a decimal; as many as other databases have. */
const MAX_PRECISION = 38;

/** A name that the API can have as a type, and Postgres as a part of a table's. */
export const isTypeName = (name: string) => /^[A-Z][A-Za-z0-9]*$/.test(name) && snakeCase(name).length <= MAX_NAME;

/** Checks the name of a field or relation, and the other names it takes. */
export function memberName(context: Context, path: string, name: string, own: readonly string[] = [name]): void {
  if (!/^[a-z][A-Za-z0-9]*$/.test(name) || snakeCase(name).length > MAX_NAME) {
    context.add(
      path,
      `a field's name starts with a small letter and has letters and digits only, at most ${MAX_NAME} (a capital counts twice). Example: firstName`,
    );
  }
  for (const each of new Set(own)) {
    if (TAKEN_FIELDS.includes(each))
      context.add(path, `every record has ${each} already. Remove it, or choose another name`);
  }
  if (FILTER_WORDS.includes(name)) context.add(path, `${name} is a word of the filters. Choose another name`);
}

/** Checks all of a field that can be said without its neighbours. `block` names the block it stands in, if any. */
export function checkField(
  context: Context,
  path: string,
  name: string,
  field: unknown,
  block: string | null,
): FieldDefinition {
  if (!(field instanceof Field)) {
    context.add(
      path,
      field instanceof Link
        ? 'a block has no relations; hold the records in a field of the model'
        : `is no field. Example: ${name}: text().required()`,
    );
    return definitionOf(name, attributes('text'));
  }
  const add = (message: string) => context.add(path, message);
  const given: Attributes = field.attributes;
  const { type, target, values, maxLength, minLength, min, max, precision, scale, onDelete } = given;
  memberName(context, path, name, [name, type === 'relation' ? `${name}Id` : name]);
  if (type === 'relation') {
    if (!context.names.includes(target ?? '')) add(noModel(context, target, 'belongsTo'));
    if (given.pii !== null)
      add(`a relation cannot be personal, its id says nothing. Mark the fields of ${target} that do`);
    if (!['restrict', 'cascade', 'setNull'].includes(onDelete ?? ''))
      add(`onDelete: ${quoted(onDelete)} is none of restrict, cascade and setNull`);
    if (onDelete === 'setNull' && given.required)
      add(
        "setNull would empty it, but it is required. Example: belongsTo('Company', { onDelete: 'cascade' }).required()",
      );
  }
  for (const value of type === 'enum' ? (values ?? []) : []) {
    const isName = typeof value === 'string' && /^[A-Za-z_][A-Za-z0-9_]*$/.test(value);
    if (!isName || value.startsWith('__') || LITERALS.includes(value)) {
      add(
        `${quoted(value)} cannot be a value of the API. Letters, digits and _ are allowed, but no true, false or null. Example: InProgress`,
      );
    }
  }
  if (type === 'enum' && !values?.length) add(`has no values. Example: ${name}: enumeration('Open', 'Won')`);
  if (type === 'enum' && new Set(values).size !== values?.length) add('a value stands there twice. Remove one of them');
  if (maxLength !== null && !(Number.isInteger(maxLength) && maxLength > 0 && maxLength <= MAX_TEXT))
    add(`max(${shown(maxLength)}) is no whole number from 1 to ${MAX_TEXT}. Example: max(100)`);
  if (minLength !== null && !(Number.isInteger(minLength) && minLength >= 0))
    add(`min(${shown(minLength)}) is no whole number. Example: min(3)`);
  if (given.maxItems !== null && !(Number.isInteger(given.maxItems) && given.maxItems > 0))
    add(`max(${shown(given.maxItems)}) is no whole number from 1 on. Example: max(50)`);
  for (const [word, bound] of [
    ['min', min],
    ['max', max],
  ] as const) {
    if (bound !== null && !Number.isFinite(bound)) add(`${word}(${shown(bound)}) is no number. Example: ${word}(100)`);
    else if (type === 'integer' && bound !== null && !(Number.isInteger(bound) && Math.abs(bound) <= 2 ** 31))
      add(`${word}(${bound}) is no whole number of 32 bits. Example: ${word}(100), or decimal(18, 0) for larger ones`);
  }
  const [least, most] = [minLength ?? min, minLength === null ? max : maxLength];
  if (least !== null && most !== null && least > most)
    add(`min(${least}) is above max(${most}). Example: min(0).max(100)`);
  if (type === 'decimal') {
    const isPrecision = Number.isInteger(precision) && precision! >= 1 && precision! <= MAX_PRECISION;
    if (!isPrecision || !(Number.isInteger(scale) && scale! >= 0 && scale! <= precision!))
      add(
        `decimal(${precision}, ${scale}) has no digits that could be kept: 1 to ${MAX_PRECISION} in all, of them 0 or more behind the point. Example: decimal(12, 2)`,
      );
  }
  if (given.pattern !== null) {
    const { source, flags } = given.pattern;
    const compiled = typeof source === 'string' && typeof flags === 'string' ? compilePattern(given.pattern) : null;
    if (!compiled) add('pattern() takes a regular expression. Example: pattern(/^[A-Z]{2}\\d+$/)');
    else if ('fault' in compiled)
      add(`the pattern /${source}/${flags} cannot be used: ${compiled.fault}. Example: pattern(/^[A-Z]{2}\\d+$/)`);
  }
  if (given.file !== null) {
    const { accept, maxBytes } = given.file;
    if (accept !== null && !(isStrings(accept) && accept.every((each) => /^[\w.+-]+\/([\w.+-]+|\*)$/.test(each))))
      add("accept is no list of media types. Example: file({ accept: ['image/*', 'application/pdf'] })");
    if (maxBytes !== null && !(Number.isInteger(maxBytes) && maxBytes > 0))
      add(`maxBytes: ${quoted(maxBytes)} is no whole number from 1 on. Example: file({ maxBytes: 5_000_000 })`);
  }
  for (const [rule, message] of Object.entries(given.messages ?? {})) {
    if (typeof message !== 'string' || message === '')
      add(`the message of ${rule} is no sentence. Example: 'Too long.'`);
  }
  if (given.description !== null && typeof given.description !== 'string')
    add("describe() takes a sentence. Example: describe('First and last name.')");
  checkUi(context, path, given.ui);
  if (block !== null) {
    if (name === 'type') add('type is what tells blocks apart. Choose another name, such as kind');
    if (type === 'relation' || type === 'slug') add(`a block has no ${type}; it belongs into the fields of the model`);
    if (given.pii !== null) add('say personal() of the blocks field as a whole; a part of it cannot be sealed alone');
    if (given.unique || given.index) add('what is inside a block has no index');
    if (given.formerly.length > 0) add('what is inside a block has no former name');
  }
  const allowed = given.blocks === null ? null : blockNames(context, path, given.blocks);
  if (type === 'blocks' && allowed?.length === 0)
    add("has no types of block. Example: blocks([block('Paragraph', { fields: { text: text().required() } })])");
  return { ...definitionOf(name, given), blocks: allowed };
}

function definitionOf(name: string, { unique: _unique, index: _index, ...settings }: Attributes): FieldDefinition {
  return { name, ...settings, blocks: null };
}

/** The names of the blocks that may stand in a field; those declared there become known. */
function blockNames(context: Context, path: string, types: readonly (Block | string)[]): string[] {
  if (!Array.isArray(types)) {
    context.add(path, 'blocks() takes a list. Example: blocks([Paragraph, CallLog])');
    return [];
  }
  return types.flatMap((type: unknown) => {
    if (typeof type === 'string') return [type];
    if (type instanceof Block) {
      defineBlock(context, path, type);
      return [type.name];
    }
    context.add(
      path,
      `${quoted(type)} is no block. Example: block('Paragraph', { fields: { text: text().required() } })`,
    );
    return [];
  });
}

function defineBlock(context: Context, path: string, block: Block): void {
  const known = context.blocks.get(block.name);
  if (known?.block === block) return;
  const blockPath = `blocks.${block.name}`;
  if (known) {
    // Two of one name are the same type when they say the same; the API and its readers know them by their names.
    if (quoted(known.block) !== quoted(block))
      context.add(
        path,
        `there is another block ${block.name} already, in ${known.path}. Declare it once, or rename one`,
      );
    return;
  }
  const entry = { block, path, definition: null as BlockDefinition | null };
  context.blocks.set(block.name, entry);
  if (!isTypeName(block.name))
    context.add(path, `a block's name starts with a capital and has letters and digits only. Example: Paragraph`);
  else if (PLATFORM_TYPES.includes(block.name) || context.names.includes(block.name))
    context.add(path, `the API has a type ${block.name} already. Choose another name, such as ${block.name}Block`);
  const declared = isObject(block.declaration) ? block.declaration : { fields: {} };
  unknownKeys(context, blockPath, declared, ['description', 'fields', 'ui']);
  const members = Object.entries(isObject(declared.fields) ? declared.fields : {});
  if (members.length > MAX_FIELDS)
    context.add(blockPath, `has ${members.length} fields; at most ${MAX_FIELDS} are allowed`);
  const fields = members.map(([name, field]) =>
    checkField(context, `${blockPath}.fields.${name}`, name, field, block.name),
  );
  const ui = checkModelUi(
    context,
    blockPath,
    declared.ui,
    fields.map(({ name }) => name),
  );
  entry.definition = { name: block.name, description: declared.description ?? null, fields, ui };
}

const UI_WORDS: Readonly<Record<keyof FieldUi, 'string' | 'boolean'>> = {
  label: 'string',
  widget: 'string',
  placeholder: 'string',
  help: 'string',
  group: 'string',
  hidden: 'boolean',
  readOnly: 'boolean',
};

/** Checks how a field is shown. */
export function checkUi(context: Context, path: string, ui: unknown): void {
  if (ui === null) return;
  for (const [word, value] of Object.entries(isObject(ui) ? ui : { ui })) {
    const type = Object.hasOwn(UI_WORDS, word) ? UI_WORDS[word as keyof FieldUi] : undefined;
    if (!type) context.add(path, `ui has no ${word}. There are ${Object.keys(UI_WORDS).join(', ')}`);
    else if (typeof value !== type) context.add(path, `ui.${word} is no ${type}. Example: ui({ label: 'Name' })`);
  }
}

/** Checks how a model or block is shown. `names` are what it has. */
export function checkModelUi(context: Context, path: string, given: unknown, names: readonly string[]): ModelUi | null {
  if (given === undefined || given === null) return null;
  if (!isObject(given)) {
    context.add(`${path}.ui`, "is no object. Example: ui: { label: 'People', list: ['name', 'email'] }");
    return null;
  }
  unknownKeys(context, `${path}.ui`, given, ['label', 'group', 'icon', 'title', 'list']);
  const { list, ...words } = given;
  for (const [word, value] of Object.entries(words)) {
    if (typeof value !== 'string') context.add(`${path}.ui.${word}`, "is no string. Example: label: 'People'");
  }
  const named = [...(isStrings(list) ? list : []), ...(typeof given['title'] === 'string' ? [given['title']] : [])];
  if (list !== undefined && !isStrings(list))
    context.add(`${path}.ui.list`, "is no list of fields. Example: list: ['name']");
  for (const name of named) {
    if (!names.includes(name)) context.add(`${path}.ui`, `there is no field ${name}. There are ${names.join(', ')}`);
  }
  return given;
}

/** All types of block that a model's fields may hold, through all levels. */
export function blocksOf(context: Context, model: ModelDefinition): BlockDefinition[] {
  const found = new Map<string, BlockDefinition>();
  const visit = (path: string, fields: readonly FieldDefinition[]) => {
    for (const field of fields) {
      for (const name of field.blocks ?? []) {
        const definition = context.blocks.get(name)?.definition;
        if (!definition)
          context.add(
            `${path}.${field.name}`,
            `there is no block ${name}. There are ${[...context.blocks.keys()].join(', ')}`,
          );
        else if (!found.has(name)) {
          found.set(name, definition);
          visit(`blocks.${name}.fields`, definition.fields);
        }
      }
    }
  };
  visit(`models.${model.name}.fields`, model.fields);
  return [...found.values()];
}

/** Checks what a field says of its neighbours. */
export function checkAmongFields(context: Context, path: string, model: ModelDefinition, field: FieldDefinition): void {
  for (const former of isStrings(field.formerly) ? field.formerly : []) {
    const others = model.fields.filter((other) => other !== field && other.formerly.includes(former));
    const taken = [...model.fields, ...model.relations, ...model.computed, ...others].find(
      (other) => other.name === former || others.includes(other as FieldDefinition),
    );
    if (!/^[a-z][A-Za-z0-9]*$/.test(former) || TAKEN_FIELDS.includes(former))
      context.add(path, `${quoted(former)} cannot have been a field's name. Example: text().formerly('name')`);
    else if (taken)
      context.add(
        path,
        `was called ${former}, and so is or was ${taken.name}: events could not tell them apart. Choose another name for it`,
      );
  }
  if (!isStrings(field.formerly)) context.add(path, "formerly() takes names. Example: text().formerly('name')");
  const { from, scope } = field.slug ?? { from: null, scope: [] };
  const source = model.fields.find(({ name }) => name === from);
  if (from !== null && !(source && (TEXTS.includes(source.type) || source.type === 'enum') && source.type !== 'slug'))
    context.add(path, `is made from ${from}, which is no text of ${model.name}. Example: slug({ from: 'title' })`);
  // What is made of a name tells the name.
  if (source?.pii && field.pii === null) (field as Mutable<FieldDefinition>).pii = source.pii;
  for (const name of isStrings(scope) ? scope : []) {
    const scoped = model.fields.find((candidate) => candidate.name === name);
    if (!scoped || SHAPES.includes(scoped.type) || !scoped.required)
      context.add(
        path,
        `is unique within ${name}, which is no required field of ${model.name} that could be compared: records without a value are all different`,
      );
  }
  if (!isStrings(scope))
    context.add(path, "scope is no list of fields. Example: slug({ from: 'title', scope: ['language'] })");
  checkDefault(context, path, model, field);
}

/** Checks a default, and puts it as it is stored. */
export function checkDefault(context: Context, path: string, model: ModelDefinition, field: FieldDefinition): void {
  if (field.default === null) return;
  if ('now' in field.default) {
    if (!TIMES.includes(field.type))
      context.add(path, 'only a date or a datetime has a time to take. Example: datetime().defaultNow()');
    return;
  }
  const checked = checkValue(model, field, field.name, field.default.value);
  if ('faults' in checked) {
    for (const { message } of checked.faults) context.add(path, `its default cannot be stored: ${message}`);
  } else (field as Mutable<FieldDefinition>).default = { value: checked.value };
}

/** A bound as a message shows it: what JSON has no word for, too. */
function shown(value: unknown): string {
  return typeof value === 'number' ? String(value) : quoted(value);
}
