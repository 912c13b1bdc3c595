import { isInputObjectType, isObjectType, type GraphQLSchema } from 'graphql';

/** Of what stands in many types and means the same in each. */
const FIELDS: Readonly<Record<string, string>> = {
  id: 'Tells it apart from all others, and never changes.',
  createdAt: 'When it was made.',
  updatedAt: 'When it was changed last.',
  deletedAt: 'When it was deleted.',
  recordedAt: 'When it was written into the log.',
  nodes: 'The entries of the page.',
  edges: 'The entries of the page, each with its cursor.',
  pageInfo: 'Where the page lies in its list.',
  node: 'The entry itself.',
  cursor: 'The place of the entry: go on behind it with `after`, ahead of it with `before`.',
  hasNextPage: 'Whether something comes behind the page.',
  hasPreviousPage: 'Whether something comes ahead of the page.',
  startCursor: 'The cursor of the first entry; null of an empty page.',
  endCursor: 'The cursor of the last entry; null of an empty page.',
  and: 'All of these must hold.',
  or: 'At least one of these must hold.',
  not: 'This must not hold.',
  equals: 'The same; null: there is no value.',
  in: 'One of these.',
  gt: 'Greater, or later.',
  gte: 'The same, or greater or later.',
  lt: 'Smaller, or earlier.',
  lte: 'The same, or smaller or earlier.',
  isNull: 'True: there is no value. False: there is one.',
  count: 'How many there are.',
  group: 'What they share.',
  sum: 'All values added up.',
  avg: 'The mean of the values.',
  min: 'The smallest value.',
  max: 'The greatest value.',
  changes: 'What was changed, field by field.',
  record: 'The record as this version has it.',
  version: 'Grows by one with every change.',
};

const ARGUMENTS: Readonly<Record<string, string>> = {
  id: 'Its id.',
  where: 'Only what fits this; all unless given.',
  orderBy: 'The order, most important first; oldest first unless given.',
  groupBy: 'The fields whose values make a group; one group of all unless given.',
  input: 'What is to be written, or asked for.',
  first: 'How many at most.',
  after: 'Only what comes behind this cursor, such as the endCursor of a page.',
};

/** By the names that generated types have; the first that fits says what the type is. */
const TYPES: readonly (readonly [RegExp, string])[] = [
  [/^Query$/, 'What can be read.'],
  [/^Mutation$/, 'What can be changed.'],
  [/^Subscription$/, 'What can be followed as it happens.'],
  [/^Direction$/, 'The way of an order.'],
  [/Connection$/, 'A page of a list.'],
  [/Edge$/, 'An entry of a page, with its cursor.'],
  [/IsFilter$/, 'Conditions on the record that it belongs to; all that are given must hold.'],
  [/SomeFilter$/, 'Conditions on the records that belong to it; all that are given must hold.'],
  [/Filter$/, 'Conditions on a value; all that are given must hold.'],
  [/^Create\w+Input$/, 'What a new one is made with.'],
  [/^Update\w+Input$/, 'What is to be changed. What is left out stays as it is; null empties a field.'],
];

/** What a field of a type means, by the type's name; `$` is the name of the field in words. */
const FIELDS_OF: readonly (readonly [RegExp, string])[] = [[/Where$/, 'A condition on $.']];

/**
 * Gives everything in a schema that says nothing of itself a sentence, so that its documentation has no gap: what authors and
 * features have written stays. A field that its author says nothing of is told by its name in words.
 */
export function fillInDocs(schema: GraphQLSchema): GraphQLSchema {
  for (const type of Object.values(schema.getTypeMap())) {
    if (type.name.startsWith('__')) continue;
    type.description ||= TYPES.find(([pattern]) => pattern.test(type.name))?.[1] ?? sentence(inWords(type.name));
    if (!isObjectType(type) && !isInputObjectType(type)) continue;
    const ofType = FIELDS_OF.find(([pattern]) => pattern.test(type.name))?.[1];
    for (const field of Object.values(type.getFields())) {
      const own = FIELDS[field.name];
      const isLogical = field.name === 'and' || field.name === 'or' || field.name === 'not';
      const told = ofType && !isLogical ? ofType.replace('$', inWords(field.name)) : own;
      field.description ||= told ?? sentence(inWords(field.name));
      for (const argument of 'args' in field ? field.args : [])
        argument.description ||= ARGUMENTS[argument.name] ?? sentence(inWords(argument.name));
    }
  }
  return schema;
}

/** `companyId`: the id of company; `closesOn`: closes on. */
function inWords(name: string): string {
  const ofReference = /^(.+[a-z0-9])Id$/.exec(name)?.[1];
  if (ofReference) return `the id of ${inWords(ofReference)}`;
  return name.replaceAll(/([a-z0-9])([A-Z])/g, '$1 $2').toLowerCase();
}

function sentence(words: string): string {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}
