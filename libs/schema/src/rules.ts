import {
  isObject,
  isStrings,
  listOf,
  NUMBERS,
  quoted,
  SHAPES,
  TEXTS,
  TIMES,
  unknownKeys,
  type Context,
} from './faults.js';
import {
  ADMIN,
  isDemanded,
  OWN_FIELDS,
  type AccessDefinition,
  type ActionBinding,
  type CheckDefinition,
  type ComparisonOperator,
  type Condition,
  type FieldDefinition,
  type FieldType,
  type FieldValue,
  type Grant,
  type ModelDefinition,
  type Operand,
  type Operation,
  type Scalar,
} from './model.js';
import { checkValue } from './validation.js';

/** A check of a model; none after a fault. */
export function checkOf(context: Context, path: string, model: ModelDefinition, given: unknown): CheckDefinition[] {
  const check = isObject(given) ? given : {};
  const { message } = check;
  const isTold = typeof message === 'string' && message !== '';
  if (!isTold)
    context.add(
      path,
      "has no message. Example: { where: { amount: { gte: 0 } }, message: 'The amount is not negative.' }",
    );
  if (!isObject(given)) return [];
  unknownKeys(context, path, check, ['where', 'message']);
  const condition = conditionOf(context, `${path}.where`, model, check['where']);
  return condition && isTold ? [{ condition, message, field: firstField(condition) ?? '' }] : [];
}

function firstField(condition: Condition): string | null {
  switch (condition.op) {
    case 'and':
    case 'or':
      return condition.of.map(firstField).find((name) => name !== null) ?? null;
    case 'not':
      return firstField(condition.of);
    default:
      return condition.field;
  }
}

const ORDERINGS = ['gt', 'gte', 'lt', 'lte'];
const OPERATORS = ['equals', 'not', 'in', 'notIn', ...ORDERINGS, 'isNull'];
/** Levels of and, or and not: more than a person reads. */
const MAX_CONDITION_DEPTH = 10;

/** Reads a condition in the words of the API's filters. Null after a fault. `hasCaller`: it may ask about who asks. */
export function conditionOf(
  context: Context,
  path: string,
  model: ModelDefinition,
  given: unknown,
  hasCaller = false,
  depth = 0,
): Condition | null {
  const wrong = (message: string) => {
    context.add(path, message);
    return null;
  };
  if (!isObject(given) || Object.keys(given).length === 0)
    return wrong('says nothing about any field. Example: { amount: { gte: 0 } }');
  if (depth > MAX_CONDITION_DEPTH) return wrong(`is nested deeper than ${MAX_CONDITION_DEPTH} levels`);
  const parts = Object.entries(given).flatMap(([name, said]): (Condition | null)[] => {
    const inner = (part: unknown, at: string) =>
      conditionOf(context, `${path}.${at}`, model, part, hasCaller, depth + 1);
    if (name === 'and' || name === 'or') {
      if (!Array.isArray(said) || said.length === 0)
        return [wrong(`${name} is no list of conditions. Example: ${name}: [{ … }, { … }]`)];
      const of = said.map((part, at) => inner(part, `${name}.${at}`));
      return [of.every((part) => part !== null) ? { op: name, of } : null];
    }
    if (name === 'not') {
      const of = inner(said, 'not');
      return [of && { op: 'not', of }];
    }
    const field = model.fields.find((candidate) => candidate.name === name);
    if (!field)
      return [
        wrong(
          `there is no field ${name} in ${model.name}. There are ${model.fields.map((each) => each.name).join(', ')}`,
        ),
      ];
    if (SHAPES.includes(field.type)) return [wrong(`${name} is ${field.type}, which cannot be compared`)];
    if (!isObject(said) || Object.keys(said).length === 0)
      return [wrong(`${name} is compared with nothing. Example: ${name}: { isNull: false }`)];
    return Object.entries(said).map(([operator, operand]) =>
      comparisonOf(context, `${path}.${name}`, model, field, operator, operand, hasCaller),
    );
  });
  if (parts.some((part) => part === null)) return null;
  const sound = parts as Condition[];
  return sound.length === 1 ? sound[0]! : { op: 'and', of: sound };
}

function comparisonOf(
  context: Context,
  path: string,
  model: ModelDefinition,
  field: FieldDefinition,
  operator: string,
  operand: unknown,
  hasCaller: boolean,
): Condition | null {
  const wrong = (message: string) => {
    context.add(path, message);
    return null;
  };
  if (!OPERATORS.includes(operator))
    return wrong(`there is no operator ${operator}. There are ${OPERATORS.join(', ')}`);
  if (ORDERINGS.includes(operator) && !NUMBERS.includes(field.type) && !TIMES.includes(field.type))
    return wrong(
      `${field.name} is ${field.type}, which has no order that is the same everywhere. Use equals, not, in or notIn`,
    );
  if (operator === 'isNull') {
    if (typeof operand !== 'boolean') return wrong('isNull is true or false. Example: { isNull: false }');
    return { op: 'isNull', field: field.name, isNull: operand };
  }
  const literal = (value: unknown): Scalar | null => {
    // The length of a text and the shape of a pattern say what may be stored, not what may be asked.
    const checked = checkValue(
      model,
      { ...field, required: false, minLength: null, pattern: null, min: null, max: null },
      field.name,
      value,
    );
    if ('value' in checked) return checked.value as Scalar;
    for (const { message } of checked.faults) wrong(`${quoted(value)} cannot be compared with: ${message}`);
    return null;
  };
  if (operator === 'in' || operator === 'notIn') {
    if (!Array.isArray(operand)) return wrong(`${operator} takes a list. Example: { ${operator}: ['Open', 'Won'] }`);
    const values = operand.map(literal);
    return values.includes(null) ? null : { op: operator, field: field.name, values: values as Scalar[] };
  }
  const op = (operator === 'not' ? 'notEquals' : operator) as ComparisonOperator;
  if (operand === null || operand === undefined) {
    if (op === 'equals' || op === 'notEquals') return { op: 'isNull', field: field.name, isNull: op === 'equals' };
    return wrong(`${op}: null compares with nothing. Use isNull: true or isNull: false`);
  }
  const made = operandOf(wrong, model, field, operand, literal, hasCaller);
  return made && { op, field: field.name, operand: made };
}

function operandOf(
  wrong: (message: string) => null,
  model: ModelDefinition,
  field: FieldDefinition,
  operand: unknown,
  literal: (value: unknown) => Scalar | null,
  hasCaller: boolean,
): Operand | null {
  if (!isObject(operand)) {
    const value = literal(operand);
    return value === null ? null : { value };
  }
  if (typeof operand['field'] === 'string') {
    const other = model.fields.find((candidate) => candidate.name === operand['field']);
    if (!other) return wrong(`there is no field ${operand['field']} in ${model.name}`);
    if (!areComparable(field.type, other.type))
      return wrong(`${field.name} is ${field.type} and ${other.name} is ${other.type}; they cannot be compared`);
    return { field: other.name };
  }
  const asked = operand['caller'];
  if (asked === 'id' || asked === 'role') {
    if (!hasCaller) return wrong('only the rules of access know who asks');
    if (!['text', 'relation', 'enum', 'email', 'slug'].includes(field.type))
      return wrong(`${field.name} is ${field.type}, which is no name of anyone. Example: owner: { equals: caller.id }`);
    return { caller: asked };
  }
  return wrong(
    `${quoted(operand)} is nothing to compare with. Example: { equals: 'Won' }, { equals: { field: 'other' } }`,
  );
}

/** Decimals and doubles never meet: one side would be rounded. */
function areComparable(a: FieldType, b: FieldType): boolean {
  if (a === b) return true;
  const isText = (type: FieldType) => TEXTS.includes(type) || type === 'enum';
  if (isText(a) && isText(b)) return true;
  return NUMBERS.includes(a) && NUMBERS.includes(b) && (a === 'integer' || b === 'integer');
}

const OPERATIONS: readonly Operation[] = ['read', 'create', 'update', 'delete'];

/** Who may do what; an operation that is left out is Admin's alone. */
export function accessOf(context: Context, path: string, model: ModelDefinition, given: unknown): AccessDefinition {
  if (given !== undefined && !isObject(given))
    context.add(path, 'is no object. Example: access: { read: { everyone: true }, update: { Manager: true } }');
  const said = isObject(given) ? given : {};
  unknownKeys(context, path, said, OPERATIONS);
  return Object.fromEntries(
    OPERATIONS.map((operation) => [
      operation,
      grantsOf(context, `${path}.${operation}`, model, operation, said[operation]),
    ]),
  ) as Record<Operation, Record<string, Grant>>;
}

const ALL: Grant = { fields: null, where: null };

function grantsOf(
  context: Context,
  path: string,
  model: ModelDefinition,
  operation: Operation,
  given: unknown,
): Record<string, Grant> {
  if (given === undefined) return { [ADMIN]: ALL };
  if (!isObject(given)) {
    context.add(
      path,
      `does not say who. Example: ${operation}: { Manager: true, everyone: ${operation === 'delete' ? 'false' : "['name']"} }`,
    );
    return {};
  }
  unknownKeys(context, path, given, [...context.roles, 'everyone']);
  const grants: Record<string, Grant> = {};
  // What several roles may has the same faults; they are told of the first.
  const told = new Set<string>();
  const once: Context = {
    ...context,
    add: (place, message) => {
      if (!told.has(message)) context.add(place, message);
      told.add(message);
    },
  };
  for (const role of context.roles) {
    const name = Object.hasOwn(given, role) ? role : role === ADMIN ? null : 'everyone';
    const grant = name === null ? ALL : readGrant(once, `${path}.${name}`, model, operation, given[name]);
    if (grant) grants[role] = grant;
    const lacking = operation === 'create' && grant?.fields ? lackingFields(model, grant.fields) : [];
    if (lacking.length > 0)
      once.add(
        `${path}.${name}`,
        `may not write ${lacking.join(', ')}, without which no ${model.name} can be created. Add them, or give them a default`,
      );
  }
  return grants;
}

function lackingFields(model: ModelDefinition, fields: readonly string[]): string[] {
  return model.fields.filter((field) => isDemanded(field) && !fields.includes(field.name)).map(({ name }) => name);
}

/** What a role may do, or null for nothing. */
function readGrant(
  context: Context,
  path: string,
  model: ModelDefinition,
  operation: Operation,
  given: unknown,
): Grant | null {
  if (given === undefined || given === false) return null;
  if (given === true) return ALL;
  const fields = isObject(given) ? given['fields'] : given;
  if ((!isObject(given) && !Array.isArray(given)) || (fields !== undefined && !isStrings(fields))) {
    context.add(path, "is neither true, false, a list of fields, nor { fields, where }. Example: ['id', 'name']");
    return null;
  }
  if (isObject(given)) unknownKeys(context, path, given, ['fields', 'where']);
  const writable = [
    ...model.fields.map(({ name }) => name),
    ...model.relations.flatMap(({ name, input }) => (input ? [name] : [])),
  ];
  const readable = [...OWN_FIELDS, ...[...model.fields, ...model.relations, ...model.computed].map(({ name }) => name)];
  const names = operation === 'read' ? readable : writable;
  if (fields !== undefined && operation === 'delete')
    context.add(path, 'a record is deleted as a whole. Say true, or { where: … }');
  for (const name of fields ?? []) {
    if (!names.includes(name))
      context.add(path, `there is no field ${name} to ${operation}. There are ${names.join(', ')}`);
  }
  const where =
    isObject(given) && given['where'] !== undefined
      ? conditionOf(context, `${path}.where`, model, given['where'], true)
      : null;
  if (Array.isArray(fields) && fields.length === 0) return null;
  return { fields: fields === undefined ? null : [...new Set(fields as readonly string[])], where };
}

/** The actions of a model's events. */
export function actionsOf(context: Context, path: string, model: ModelDefinition, given: unknown): ActionBinding[] {
  if (given === undefined) return [];
  if (!isObject(given)) {
    context.add(path, "is no object. Example: on: { created: ['welcomeContact'] }");
    return [];
  }
  unknownKeys(context, path, given, ['created', 'updated', 'deleted']);
  return (['created', 'updated', 'deleted'] as const).flatMap((event) =>
    listOf(context, `${path}.${event}`, given[event] as readonly unknown[] | undefined, "'welcomeContact'").map(
      (said, at) => actionOf(context, `${path}.${event}.${at}`, model, event, said),
    ),
  );
}

function actionOf(
  context: Context,
  path: string,
  model: ModelDefinition,
  event: ActionBinding['event'],
  given: unknown,
): ActionBinding {
  const said: Record<string, unknown> = isObject(given) ? given : { action: given };
  unknownKeys(context, path, said, ['action', 'changedAny', 'fieldEquals']);
  const { action, changedAny, fieldEquals } = said;
  if (typeof action !== 'string' || !/^[A-Za-z][\w.-]{0,99}$/.test(action))
    context.add(
      path,
      "names no action: letters, digits and . _ - are allowed, at most 100. Example: { action: 'syncDeal', changedAny: ['stage'] }",
    );
  if (changedAny !== undefined && event !== 'updated')
    context.add(path, `nothing changes when a record is ${event}. Leave changedAny out`);
  if (changedAny !== undefined && (!isStrings(changedAny) || changedAny.length === 0))
    context.add(path, "changedAny is no list of fields. Example: changedAny: ['stage']");
  const names = [...model.fields, ...model.relations.filter(({ input }) => input)].map(({ name }) => name);
  for (const name of isStrings(changedAny) ? changedAny : []) {
    if (!names.includes(name))
      context.add(path, `there is no field ${name} in ${model.name}. There are ${names.join(', ')}`);
  }
  const equals: Record<string, FieldValue> = {};
  if (fieldEquals !== undefined && !isObject(fieldEquals))
    context.add(path, "fieldEquals is no object. Example: fieldEquals: { stage: 'Won' }");
  for (const [name, value] of Object.entries(isObject(fieldEquals) ? fieldEquals : {})) {
    const field = model.fields.find((candidate) => candidate.name === name);
    if (!field || SHAPES.includes(field.type)) {
      context.add(path, `fieldEquals names ${name}, which is no field of ${model.name} that could be compared`);
      continue;
    }
    const checked = value === null ? { value: null } : checkValue(model, field, name, value);
    if ('value' in checked) equals[name] = checked.value;
    else for (const { message } of checked.faults) context.add(path, `fieldEquals: ${message}`);
  }
  return {
    event,
    action: String(action),
    changedAny: isStrings(changedAny) ? changedAny : null,
    fieldEquals: fieldEquals === undefined ? null : equals,
  };
}
