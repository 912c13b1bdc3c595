import { scaleOf } from './condition.js';
import { Field, idsName, Link, type Block, type Computation, type Fields, type ModelDeclaration } from './dsl.js';
import {
  noModel,
  isObject,
  isStrings,
  listOf,
  quoted,
  schemaInvalid,
  SHAPES,
  TEXTS,
  unknownKeys,
  type Context,
  type Found,
  type Mutable,
  type SchemaFault,
} from './faults.js';
import {
  blocksOf,
  checkAmongFields,
  checkDefault,
  checkField,
  checkModelUi,
  checkUi,
  isTypeName,
  MAX_FIELDS,
  MAX_NAME,
  memberName,
  PLATFORM_TYPES,
} from './fields.js';
import {
  ADMIN,
  inputName,
  OWN_FIELDS,
  SCHEMA_VERSION,
  snakeCase,
  type BlockDefinition,
  type ComputedDefinition,
  type Condition,
  type ExpressionPart,
  type FieldDefinition,
  type ModelDefinition,
  type RelationDefinition,
  type SchemaDefinition,
  type UniqueDefinition,
} from './model.js';
import { accessOf, actionsOf, checkOf, conditionOf } from './rules.js';

/** A whole schema as its author declares it. */
export interface SchemaDeclaration<M extends Readonly<Record<string, Fields>> = Readonly<Record<string, Fields>>> {
  /** Who there may be. Admin, Manager, Sales, Support and Viewer unless said otherwise; Admin always is. */
  readonly roles?: readonly string[];
  readonly models: { readonly [K in keyof M]: ModelDeclaration<M[K]> };
}

/** The roles of a schema that names none. */
export const DEFAULT_ROLES: readonly string[] = [ADMIN, 'Manager', 'Sales', 'Support', 'Viewer'];

/** Names the API uses for itself on the query type, so no model may list or read under them. */
const PLATFORM_NAMES = [
  'me user users sessions apiTokens secrets tenant tenants tenantPlan events auditLog projections connections memorySearch graphNodes graphNode historicalSyncJob historicalSyncJobs',
].flatMap((line) => line.split(' '));
/** Characters of all texts in one index: an entry of Postgres' btree has 2,704 bytes, a UTF-16 unit takes up to three. */
const MAX_KEY = 800;
const MAX_ROLES = 50;

/**
 * Turns a declaration into its checked intermediate form.
 * @throws CodedError SCHEMA_INVALID listing every fault: the path inside the schema, what is wrong, what would be right; the same as
 *   data in `details.faults` (`SchemaFault[]`)
 */
export function defineSchema<const M extends Readonly<Record<string, Fields>>>(
  declaration: SchemaDeclaration<M>,
): SchemaDefinition {
  const { schema, faults } = checkSchema(declaration);
  if (faults.length > 0) throw schemaInvalid(faults);
  return schema;
}

/** The intermediate form of a declaration with all its faults; it is to be used only where there are none. Never throws. */
export function checkSchema(declaration: SchemaDeclaration): {
  readonly schema: SchemaDefinition;
  readonly faults: readonly SchemaFault[];
} {
  const faults: SchemaFault[] = [];
  const found: Found = { faults, add: (path, message) => void faults.push({ path, message }) };
  const declared = (isObject(declaration) ? declaration : {}) as Partial<SchemaDeclaration>;
  unknownKeys(found, 'schema', declared, ['roles', 'models']);
  const roles = rolesOf(found, declared.roles);
  const names = Object.keys(declared.models ?? {});
  if (names.length === 0)
    found.add('models', 'there is none. Example: models: { Contact: { fields: { name: text().required() } } }');
  const blocks = new Map<
    string,
    { readonly block: Block; readonly path: string; definition: BlockDefinition | null }
  >();
  const taken = new Map<string, string>(PLATFORM_NAMES.map((name) => [name, 'the platform']));
  const context: Context = { ...found, names, roles, blocks };
  const drafts = names.map((name) => draftModel(context, name, declared.models![name], taken));
  for (const draft of drafts) relate(context, draft, drafts);
  // The rest speaks of fields, relations and blocks, which are known only now.
  for (const draft of drafts) complete(context, draft);
  const schema = { version: SCHEMA_VERSION, roles, models: drafts.map(({ model }) => model) } as const;
  // A block is looked at in every model that holds it.
  const told = new Map(faults.map((fault) => [`${fault.path}\n${fault.message}`, fault]));
  return { schema, faults: [...told.values()] };
}

/** A model on its way from the declaration to its definition. */
interface Draft {
  readonly path: string;
  readonly declared: Partial<ModelDeclaration>;
  readonly model: Mutable<ModelDefinition>;
  readonly links: readonly { readonly name: string; readonly link: Link }[];
}

function rolesOf(found: Found, given: unknown): readonly string[] {
  if (given === undefined) return DEFAULT_ROLES;
  if (!isStrings(given) || given.length > MAX_ROLES || given.some((role) => !/^[A-Z][A-Za-z0-9]{0,49}$/.test(role))) {
    found.add(
      'roles',
      `is no list of at most ${MAX_ROLES} names that start with a capital. Example: roles: ['Admin', 'Editor', 'Viewer']`,
    );
    return DEFAULT_ROLES;
  }
  return [...new Set([ADMIN, ...given])];
}

function draftModel(context: Context, name: string, given: unknown, taken: Map<string, string>): Draft {
  const path = `models.${name}`;
  if (!isObject(given)) context.add(path, `is no model. Example: ${name}: { fields: { name: text().required() } }`);
  const declared = (isObject(given) ? given : { fields: {} }) as Partial<ModelDeclaration>;
  unknownKeys(
    context,
    path,
    declared,
    'description plural fields computed unique index checks softDelete access on ui'.split(' '),
  );
  if (PLATFORM_TYPES.includes(name)) {
    context.add(path, `the API has a type ${name} of its own. Choose another name, such as Team${name}`);
  }
  if (!isTypeName(name)) {
    context.add(
      path,
      `a model's name starts with a capital and has letters and digits only, at most ${MAX_NAME} (a capital counts twice). Example: Contact`,
    );
  }
  const singular = name.charAt(0).toLowerCase() + name.slice(1);
  const plural = typeof declared.plural === 'string' ? declared.plural : pluralOf(singular);
  if (!/^[a-z][A-Za-z0-9]*$/.test(plural) || typeof (declared.plural ?? '') !== 'string') {
    context.add(
      `${path}.plural`,
      `${quoted(declared.plural ?? plural)} cannot be a name of the API: it starts with a small letter and has letters and digits only. Example: people`,
    );
  }
  for (const used of [singular, plural, `${singular}History`]) {
    const owner = taken.get(used);
    if (owner)
      context.add(path, `its name in the API, ${used}, belongs to ${owner}. Set another plural, or rename the model`);
    taken.set(used, `model ${name}`);
  }
  for (const [key, type] of [
    ['description', 'string'],
    ['softDelete', 'boolean'],
  ] as const) {
    if (declared[key] !== undefined && typeof declared[key] !== type)
      context.add(`${path}.${key}`, `is no ${type}. Example: ${key}: ${type === 'string' ? "'A person.'" : 'false'}`);
  }
  const members = Object.entries(isObject(declared.fields) ? declared.fields : {});
  const fields: FieldDefinition[] = [];
  const links: { name: string; link: Link }[] = [];
  for (const [fieldName, member] of members) {
    const fieldPath = `${path}.fields.${fieldName}`;
    if (member instanceof Link) {
      memberName(context, fieldPath, fieldName);
      checkUi(context, fieldPath, member.attributes.ui);
      links.push({ name: fieldName, link: member });
    } else fields.push(checkField(context, fieldPath, fieldName, member, null));
  }
  if (members.length === 0 && isObject(given))
    context.add(`${path}.fields`, 'there is none. Example: fields: { name: text().required() }');
  if (members.length > MAX_FIELDS)
    context.add(`${path}.fields`, `there are ${members.length}; at most ${MAX_FIELDS} are allowed. Split the model`);
  const model: Mutable<ModelDefinition> = {
    name,
    singular,
    plural,
    table: `model_${snakeCase(name)}`,
    description: declared.description ?? null,
    fields,
    relations: [],
    computed: [],
    blocks: [],
    uniques: [],
    indexes: [],
    checks: [],
    softDelete: declared.softDelete ?? true,
    access: { read: {}, create: {}, update: {}, delete: {} },
    actions: [],
    ui: null,
  };
  return { path, declared, model, links };
}

/** Finds the other sides of the links, and the names of everything a record has. */
function relate(context: Context, { path, model, links, declared }: Draft, drafts: readonly Draft[]): void {
  model.relations = links.map(({ name, link }) =>
    relationOf(context, `${path}.fields.${name}`, model, name, link, drafts),
  );
  const computed = isObject(declared.computed) ? Object.keys(declared.computed) : [];
  if (declared.computed !== undefined && !isObject(declared.computed))
    context.add(
      `${path}.computed`,
      "is no object. Example: computed: { fullName: template('{firstName} {lastName}') }",
    );
  const written = new Map<string, string>();
  const claim = (place: string, name: string, names: readonly (string | null)[]) => {
    for (const each of new Set(names.flatMap((one) => (one === null ? [] : [snakeCase(one)])))) {
      const other = written.get(each);
      if (other !== undefined && other !== name)
        context.add(place, `is written under the same name as ${other}. Rename one of them`);
      written.set(each, name);
    }
  };
  for (const field of model.fields) claim(`${path}.fields.${field.name}`, field.name, [inputName(field), field.name]);
  for (const relation of model.relations)
    claim(`${path}.fields.${relation.name}`, relation.name, [relation.name, relation.input]);
  for (const name of computed) {
    const place = `${path}.computed.${name}`;
    memberName(context, place, name);
    if (model.fields.some((field) => field.name === name) || model.relations.some((relation) => relation.name === name))
      context.add(place, `is a field already. Rename one of them`);
    else claim(place, name, [name]);
  }
}

function relationOf(
  context: Context,
  path: string,
  model: ModelDefinition,
  name: string,
  link: Link,
  drafts: readonly Draft[],
): RelationDefinition {
  const { kind, target, via, through, inverseOf, onDelete, description, ui } = link.attributes;
  const relation: Mutable<RelationDefinition> = {
    name,
    kind,
    target,
    description,
    via,
    through: null,
    inverseOf,
    input: null,
    onDelete,
    ui,
  };
  const add = (message: string) => context.add(path, message);
  const draftOf = (wanted: string | null) => drafts.find((draft) => draft.model.name === wanted);
  const other = draftOf(target);
  if (!other) {
    add(noModel(context, target, kind));
    return relation;
  }
  const pointing = (from: Draft, to: string) =>
    from.model.fields.filter((field) => field.type === 'relation' && field.target === to).map((field) => field.name);
  if (kind === 'hasMany') {
    const back = pointing(other, model.name);
    const lower = model.singular;
    if (via === null && back.length === 1) relation.via = back[0]!;
    else if (via === null || !back.includes(via)) {
      const what =
        back.length === 0 ? `add ${lower}: belongsTo('${model.name}') to it` : `say via, one of ${back.join(', ')}`;
      add(
        `${target} has ${via === null ? (back.length === 0 ? 'no relation' : 'several relations') : `no relation ${via}`} to ${model.name}: ${what}. Example: hasMany('${target}', { via: '${back[0] ?? lower}' })`,
      );
    }
    return relation;
  }
  if (through !== null) {
    const middle = draftOf(through);
    const [from, to] = middle ? [pointing(middle, model.name), pointing(middle, target)] : [[], []];
    if (!middle) add(`goes through ${through}, which is no model. There are ${context.names.join(', ')}`);
    else if (from.length !== 1 || to.length !== 1 || model.name === target) {
      add(
        `${through} must have exactly one relation to ${model.name} and one to ${target}, which are different models. Example: ${through}: { fields: { ${model.singular}: belongsTo('${model.name}').required(), … } }`,
      );
    } else relation.through = { model: through, from: from[0]!, to: to[0]! };
    return relation;
  }
  if (inverseOf !== null) {
    const owner = other.links.find((candidate) => candidate.name === inverseOf)?.link.attributes;
    const isOwner = owner?.kind === 'manyToMany' && owner.target === model.name && !owner.inverseOf && !owner.through;
    if (!isOwner)
      add(
        `${target}.${inverseOf} is no relation that owns links to ${model.name}. Example: ${inverseOf}: manyToMany('${model.name}')`,
      );
    return relation;
  }
  relation.input = idsName(name);
  if (onDelete !== 'cascade' && onDelete !== 'restrict')
    add(`onDelete: ${quoted(onDelete)} is neither cascade nor restrict`);
  if (`${snakeCase(model.name)}_${snakeCase(name)}`.length > MAX_NAME)
    add(`its table's name would be longer than ${MAX_NAME}. Choose a shorter name`);
  return relation;
}

/** Adds what speaks of the model's fields. */
function complete(context: Context, draft: Draft): void {
  const { path, declared, model } = draft;
  model.blocks = blocksOf(context, model);
  for (const field of model.fields) checkAmongFields(context, `${path}.fields.${field.name}`, model, field);
  for (const block of model.blocks) {
    for (const field of block.fields) checkDefault(context, `blocks.${block.name}.fields.${field.name}`, model, field);
  }
  model.computed = Object.entries(isObject(declared.computed) ? declared.computed : {}).map(([name, computation]) =>
    computedOf(context, `${path}.computed.${name}`, model, name, computation),
  );
  const keys = keysOf(context, draft);
  model.uniques = keys.uniques;
  model.indexes = keys.indexes;
  model.checks = listOf(
    context,
    `${path}.checks`,
    declared.checks,
    "{ where: { amount: { gte: 0 } }, message: 'Not negative.' }",
  ).flatMap((check, at) => checkOf(context, `${path}.checks.${at}`, model, check));
  model.access = accessOf(context, `${path}.access`, model, declared.access);
  model.actions = actionsOf(context, `${path}.on`, model, declared.on);
  model.ui = checkModelUi(context, path, declared.ui, [
    ...OWN_FIELDS,
    ...[...model.fields, ...model.relations, ...model.computed].map(({ name }) => name),
  ]);
}

function computedOf(
  context: Context,
  path: string,
  model: ModelDefinition,
  name: string,
  given: unknown,
): ComputedDefinition {
  const said = (isObject(given) ? given : {}) as Partial<Computation>;
  const isPart = (part: unknown) => isObject(part) && typeof (part['value'] ?? part['field']) === 'string';
  const parts: readonly ExpressionPart[] = Array.isArray(said.parts) && said.parts.every(isPart) ? said.parts : [];
  const { op = 'text', description = null, ui = null } = said;
  checkUi(context, path, ui);
  unknownKeys(context, path, said, ['op', 'parts', 'description', 'ui']);
  const isText = op === 'text';
  const example = isText ? "template('{firstName} {lastName}')" : "product('price', 'quantity')";
  if (parts.length === 0 || !['text', 'sum', 'difference', 'product'].includes(op))
    context.add(path, `is no computed field. Example: ${name}: ${example}`);
  const used: FieldDefinition[] = [];
  for (const part of parts) {
    if ('value' in part) {
      if (!isText && !/^-?\d+(\.\d+)?$/.test(part.value))
        context.add(
          path,
          `${quoted(part.value)} is no number that could be calculated with exactly. Example: product('net', 1.2)`,
        );
      if (part.value.includes('\0') || !part.value.isWellFormed())
        context.add(path, 'its text has a NUL character or half a surrogate pair, which cannot be stored');
      continue;
    }
    const field = model.fields.find((candidate) => candidate.name === part.field);
    // Only what here and in SQL becomes the same text, or is calculated with exactly.
    const fits = isText ? [...TEXTS, 'enum', 'integer', 'decimal', 'date'] : ['integer', 'decimal'];
    if (!field || !fits.includes(field.type)) {
      context.add(
        path,
        `is made from ${part.field}, which is no field of ${model.name} of type ${fits.join(', ')}. Example: ${example}`,
      );
    } else used.push(field);
  }
  const isSound = used.length === parts.filter((part) => 'field' in part).length;
  const pii = used.some((field) => field.pii === 'sensitive')
    ? 'sensitive'
    : used.some((field) => field.pii !== null)
      ? 'personal'
      : null;
  return {
    name,
    type: isText ? 'text' : 'decimal',
    expression: { op, parts },
    scale: isText || !isSound ? null : scaleOf(model, { op, parts }),
    description,
    pii,
    ui,
  };
}

/** What is unique and what is found by: of single fields, of slugs, and of the model as a whole. */
function keysOf(
  context: Context,
  { path, declared, model }: Draft,
): { uniques: UniqueDefinition[]; indexes: string[][] } {
  const uniques: UniqueDefinition[] = [];
  const indexes: string[][] = [];
  const unique = (
    place: string,
    fields: readonly string[],
    where: Condition | null = null,
    message: string | null = null,
  ) => {
    checkKey(context, place, model, fields);
    uniques.push({ fields, where, message });
  };
  for (const [name, field] of Object.entries(isObject(declared.fields) ? declared.fields : {})) {
    if (!(field instanceof Field)) continue;
    const place = `${path}.fields.${name}`;
    const { unique: isUnique, index, slug } = field.attributes;
    if (slug) unique(place, [...(isStrings(slug.scope) ? slug.scope : []), name]);
    else if (isUnique) unique(place, [name]);
    else if (index) {
      checkKey(context, place, model, [name]);
      indexes.push([name]);
    }
  }
  for (const [at, given] of listOf(
    context,
    `${path}.unique`,
    declared.unique as readonly unknown[],
    "['language', 'slug']",
  ).entries()) {
    const place = `${path}.unique.${at}`;
    const said: unknown = isObject(given) ? given['fields'] : given;
    if (isObject(given)) unknownKeys(context, place, given, ['fields', 'where', 'message']);
    if (!isStrings(said) || said.length === 0) {
      context.add(
        place,
        "names no fields. Example: unique: [['language', 'slug'], { fields: ['email'], where: { stage: { equals: 'Customer' } } }]",
      );
      continue;
    }
    const where =
      isObject(given) && given['where'] !== undefined
        ? conditionOf(context, `${place}.where`, model, given['where'])
        : null;
    unique(place, said, where, isObject(given) && typeof given['message'] === 'string' ? given['message'] : null);
  }
  for (const [at, given] of listOf(
    context,
    `${path}.index`,
    declared.index as readonly unknown[],
    "['stage', 'closesOn']",
  ).entries()) {
    if (!isStrings(given) || given.length === 0) {
      context.add(`${path}.index.${at}`, "names no fields. Example: index: [['stage', 'closesOn']]");
      continue;
    }
    checkKey(context, `${path}.index.${at}`, model, given);
    indexes.push([...given]);
  }
  return { uniques, indexes };
}

function checkKey(context: Context, path: string, model: ModelDefinition, names: readonly string[]): void {
  if (new Set(names).size !== names.length) context.add(path, 'names a field twice. Remove one of them');
  let characters = 0;
  for (const name of names) {
    const field = model.fields.find((candidate) => candidate.name === name);
    if (!field) context.add(path, `there is no field ${name} in ${model.name}`);
    else if (SHAPES.includes(field.type)) context.add(path, `${name} is ${field.type}, which cannot be in an index`);
    else if (TEXTS.includes(field.type)) characters += field.maxLength ?? 0;
  }
  if (characters > MAX_KEY) {
    context.add(
      path,
      `its texts may have ${characters} characters; an index of Postgres holds ${MAX_KEY} for certain. Example: text().max(200).unique()`,
    );
  }
}

function pluralOf(singular: string): string {
  if (/[^aeiou]y$/.test(singular)) return `${singular.slice(0, -1)}ies`;
  if (/(s|x|z|ch|sh)$/.test(singular)) return `${singular}es`;
  return `${singular}s`;
}
