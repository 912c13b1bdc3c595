import {
  ADMIN,
  describeSchema,
  type ComputedDefinition,
  type FieldDefinition,
  type FieldDescription,
  type Grant,
  type ModelDefinition,
  type ModelDescription,
  type Operation,
  type Pii,
  type RoleAccess,
} from '@atomo-cc/schema';

/**
 * What the documentation of the API says of models and their fields: what the author has written of them, then what follows from the
 * schema. It says no more than `/meta/schema` tells the same role; who else may read a field is told to Admin alone.
 */
export class ModelDocs {
  private readonly described: ReadonlyMap<string, ModelDescription>;

  constructor(private readonly access: RoleAccess) {
    const { models } = describeSchema(access.schema, access.role);
    this.described = new Map(models.map((model) => [model.name, model]));
  }

  /** Of a model's own type: what one is, and what the caller may do with them. */
  model({ name, description }: Pick<ModelDefinition, 'name' | 'description'>): string {
    const rights = this.described.get(name)?.access;
    const said = description ?? `${capital(inWords(name))}.`;
    return rights ? `${said}\n\n${rightsInWords(rights)}` : said;
  }

  /** Of the value of a field, wherever it is read or written. */
  field(model: Pick<ModelDefinition, 'name'>, field: Pick<FieldDescription, 'name' | 'description'>): string {
    const of = this.described.get(model.name);
    const described = of?.fields.find(({ name }) => name === field.name);
    if (!of || !described) return field.description ?? '';
    const facts = [...factsOf(described), ...uniqueIn(of, described), ...this.readers(model, described)];
    return joined(field.description, facts.join(' '));
  }

  /** Of what a field, or a computed one, is compared with, ordered by or measured: what it is, without its rules. */
  subject(
    model: Pick<ModelDefinition, 'name'>,
    name: string,
    field: Pick<FieldDescription, 'name'>,
    told: string,
  ): string {
    const of = this.described.get(model.name);
    const isMeant = (each: { readonly name: string }) => each.name === field.name;
    const [described, computed] = [of?.fields.find(isMeant), of?.computed.find(isMeant)];
    const kind = described ? kindOf(described) : computed && `${computedKind(computed)}.`;
    return joined(`${told} \`${name}\`.`, (described ?? computed)?.description ?? kind);
  }

  /** Of a field that follows from others. */
  computed(
    model: Pick<ModelDefinition, 'name'>,
    { name, description }: Pick<ComputedDefinition, 'name' | 'description'>,
  ): string {
    const described = this.described.get(model.name)?.computed.find((each) => each.name === name);
    if (!described) return description ?? '';
    const { expression, pii } = described;
    const parts = expression.parts.flatMap((part) => ('field' in part ? [code(part.field)] : []));
    const kind = computedKind(described);
    const facts = [
      `${kind}${described.type === 'text' ? '' : ','} that is never written: it follows from ${parts.length === 0 ? 'other fields' : listed(parts)}.`,
    ];
    return joined(description, [...facts, ...(pii ? [PII[pii]] : [])].join(' '));
  }

  /** Of a value in a block. */
  blockField(field: FieldDefinition): string {
    const can = { read: true, create: true, update: true };
    return joined(field.description, factsOf({ ...field, can }).join(' '));
  }

  /** Of the condition that looks through texts. */
  search(fields: readonly Pick<FieldDefinition, 'name'>[]): string {
    const names = fields.map(({ name }) => code(name));
    const where = names.length === 1 ? names[0]! : `${names.slice(0, -1).join(', ')} or ${names.at(-1)!}`;
    return `Every word of it, at most 10, stands in ${where}, be it within a longer one. Upper and lower case are the same.`;
  }

  /** Which roles may read a field: for Admin, and where it is not everybody who may read the model at all. */
  private readers(model: Pick<ModelDefinition, 'name'>, { name }: FieldDescription): string[] {
    if (this.access.role !== ADMIN) return [];
    const grants = this.access.schema.models.find((each) => each.name === model.name)?.access.read ?? {};
    const reads = ([, { fields }]: readonly [string, Grant]) => fields === null || fields.includes(name);
    const all = Object.entries(grants);
    const some = all.filter(reads);
    if (some.length === all.length) return [];
    return [some.length === 0 ? 'Read by no role.' : `Read by ${listed(some.map(([role]) => role))}.`];
  }
}

/** `DealStage`: deal stage. */
function inWords(name: string): string {
  return name.replaceAll(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase();
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * One text of several. In the list of a type's fields GraphiQL shows the first paragraph alone, so what can stand in one does.
 */
function joined(...texts: readonly (string | null | undefined)[]): string {
  const said = texts.filter((text) => typeof text === 'string' && text !== '') as string[];
  return said.reduce((before, text) => {
    if (before.includes('\n')) return `${before}\n\n${text}`;
    return /[.!?…:]$/.test(before) ? `${before} ${text}` : `${before}. ${text}`;
  }, said.shift() ?? '');
}

function listed(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

const OPERATIONS: readonly Operation[] = ['read', 'create', 'update', 'delete'];

function rightsInWords(rights: ModelDescription['access']): string {
  const verbs = OPERATIONS.filter((operation) => rights[operation] !== 'none').map((operation) =>
    // Of what does not exist yet no rule can choose some.
    rights[operation] === 'some' ? `${operation} some` : operation,
  );
  const denied = OPERATIONS.filter((operation) => rights[operation] === 'none');
  const may = `You may ${listed(verbs)}`;
  return denied.length === 0 ? `${may}.` : `${may}, but not ${denied.join(' or ')}.`;
}

/** What the values of a field are, in half a sentence. */
function kindOf(field: FieldDescription): string {
  switch (field.type) {
    case 'text':
      return `Text${lengthOf(field)}.`;
    case 'richText':
      return `Markdown${lengthOf(field)}.`;
    case 'email':
      return 'An e-mail address.';
    case 'url':
      return 'A web address, with https:// or http://.';
    case 'slug':
      return 'A word for addresses, such as `my-first-post`.';
    case 'integer':
      return `A whole number${boundsOf(field)}.`;
    case 'number':
      return `A number${boundsOf(field)}.`;
    case 'decimal': {
      const example = field.scale ? `7.${'5'.padEnd(field.scale, '0')}` : '7';
      return `An exact number${boundsOf(field)}, of ${field.precision} digits, ${field.scale} of them behind the point, as text: \`"${example}"\`.`;
    }
    case 'boolean':
      return 'True or false.';
    case 'date':
      return 'A day, such as `2026-11-21`.';
    case 'datetime':
      return 'A moment, such as `2026-11-21T07:25:18.123Z`.';
    case 'json':
      return 'Any JSON, of 64 KiB at most.';
    case 'geoPoint':
      return 'A place in degrees: `{lat, lng}`.';
    case 'enum':
      return `One of ${listed(field.values!.map(code))}.`;
    case 'file':
      return `The id of an upload${fileRules(field)}.`;
    case 'blocks':
      return `A list of blocks, of the types ${listed(field.blocks!.map(code))}${field.maxItems === null ? '' : `, ${field.maxItems.toLocaleString('en')} at most`}: \`{type, …}\`.`;
    case 'relation':
      return field.target === null ? 'The id of another record.' : `The id of the ${field.target}.`;
  }
}

/** What the values of a computed field are, in half a sentence without its end. */
function computedKind({ scale }: Pick<ComputedDefinition, 'scale'>): string {
  return scale === null ? 'Text' : `An exact number with ${scale} digits behind the point, as text`;
}

/** All that the schema says of a field's values, a sentence each. */
function factsOf(field: FieldDescription): string[] {
  const facts = [kindOf(field)];
  if (field.pattern) facts.push(`It matches \`/${field.pattern.source}/${field.pattern.flags.replace('u', '')}\`.`);
  if (field.slug?.from) facts.push(`Made from \`${field.slug.from}\` where it is not given.`);
  if (field.default)
    facts.push(
      `${'now' in field.default ? 'The time of creation' : code(JSON.stringify(field.default.value))} where it is not given.`,
    );
  if (field.required) facts.push('Required.');
  if (field.type === 'relation' && field.target !== null)
    facts.push(ON_DELETE[field.onDelete ?? 'restrict'](field.target));
  if (field.pii) facts.push(PII[field.pii]);
  return facts;
}

const PII: Readonly<Record<Pii, string>> = {
  personal: 'Personal: sealed in the log.',
  sensitive: 'Sensitive: sealed in the log.',
};

const ON_DELETE = {
  restrict: (target: string) => `While this refers to it, the ${target} cannot be deleted.`,
  cascade: (target: string) => `Deleted along with the ${target}.`,
  setNull: (target: string) => `Emptied when the ${target} is deleted.`,
};

function uniqueIn({ uniques }: ModelDescription, { name }: FieldDescription): string[] {
  return uniques
    .filter(({ fields }) => fields.includes(name))
    .map(({ fields, isPartial }) => {
      const others = fields.filter((field) => field !== name).map(code);
      const together = others.length === 0 ? 'Unique' : `Unique together with ${listed(others)}`;
      return isPartial ? `${together}, among some of them.` : `${together}.`;
    });
}

function lengthOf({ minLength, maxLength }: FieldDescription): string {
  const most = maxLength === null ? '' : maxLength.toLocaleString('en');
  if (minLength !== null && minLength > 0) return `, ${minLength.toLocaleString('en')} to ${most} characters`;
  return most === '' ? '' : `, ${most} characters at most`;
}

function boundsOf({ type, ...given }: FieldDescription): string {
  // That an integer has 32 bits is said by its type already.
  const isOwn = (bound: number | null) =>
    bound !== null && (type !== 'integer' || (bound > -(2 ** 31) && bound < 2 ** 31 - 1));
  const min = isOwn(given.min) ? given.min : null;
  const max = isOwn(given.max) ? given.max : null;
  if (min !== null && max !== null) return `, ${min} to ${max}`;
  if (min !== null) return `, ${min} or more`;
  return max === null ? '' : `, ${max} or less`;
}

function fileRules({ file }: FieldDescription): string {
  const types = file?.accept ? `, ${listed(file.accept.map(code))}` : '';
  return `${types}${file?.maxBytes ? `, ${file.maxBytes.toLocaleString('en')} bytes at most` : ''}`;
}

function code(text: string): string {
  return `\`${text}\``;
}
