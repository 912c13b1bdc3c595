import {
  BREAK,
  GraphQLError,
  Kind,
  OperationTypeNode,
  parse,
  visit,
  type ASTNode,
  type ASTVisitor,
  type DocumentNode,
  type FragmentDefinitionNode,
  type SelectionSetNode,
  type ValidationContext,
} from 'graphql';

/** A longer document is no hand-written query; GraphiQL's introspection has 2,000 characters. */
export const MAX_DOCUMENT_CHARACTERS = 100_000;
/** Words and signs of a document: reading it costs by them. Long lists of values belong into variables. */
export const MAX_DOCUMENT_TOKENS = 15_000;
/** Fields below fields. Two levels lead to the records below a record; GraphiQL's introspection has 15. */
export const MAX_DEPTH = 20;
/** Selections in one another, fragments and all: whoever goes through them goes down as deep, so there must be an end of it. Told as MAX_DEPTH. */
const MAX_LEVELS = 100;
/** Fields of an operation or a fragment, those of its fragments counted wherever they stand: to check that they fit together costs by their square. */
export const MAX_FIELDS = 1_000;
/** Fields under a name of their own: by these one field is asked for many times. */
export const MAX_ALIASES = 200;
/** Fields of an operation itself, each a statement or a command of its own; more of them are several requests. */
export const MAX_ROOT_FIELDS = 50;
/** Objects and lists in objects and lists, of one variable. A condition has ten levels at most, blocks of text a few dozen. */
export const MAX_INPUT_DEPTH = 64;

const INTROSPECTIONS = new Set(['__schema', '__type']);
/** What of introspection holds lists of fields or types: one in the other would answer the product of both. */
const INTROSPECTED_LISTS = new Set(['fields', 'inputFields', 'interfaces', 'possibleTypes']);

/** Of a selection, with that of its fragments. */
interface Size {
  readonly fields: number;
  readonly aliases: number;
  readonly depth: number;
  /** Fields of the selection itself, not those below them. */
  readonly own: number;
  /** How deep lists of introspection stand in one another. */
  readonly lists: number;
}

const NOTHING: Size = { fields: 0, aliases: 0, depth: 0, own: 0, lists: 0 };

/** A refusal that names the limit, in its sentence and in `extensions.limit`. */
function over(limit: string, max: number, message: string, node?: ASTNode): GraphQLError {
  const extensions = { code: 'QUERY_TOO_COMPLEX', limit, max };
  return new GraphQLError(`${message} (${limit}: ${max})`, { nodes: node ?? null, extensions });
}

/** The document of a text. @throws GraphQLError for what is none; QUERY_TOO_COMPLEX for one that is not even read to its end */
export function readDocument(text: string): DocumentNode {
  if (text.length > MAX_DOCUMENT_CHARACTERS)
    throw over('MAX_DOCUMENT_CHARACTERS', MAX_DOCUMENT_CHARACTERS, 'The document has too many characters.');
  try {
    return parse(text, { maxTokens: MAX_DOCUMENT_TOKENS });
  } catch (error) {
    // The parser has no other way to tell it.
    if (!(error as Error).message.includes(`more that ${MAX_DOCUMENT_TOKENS} tokens`)) throw error;
    throw over('MAX_DOCUMENT_TOKENS', MAX_DOCUMENT_TOKENS, 'The document has too many words and signs.');
  }
}

/**
 * The limit that a document breaks, if any. Looked at before the document is checked, because the check itself costs by
 * the square of its fields; a fragment is counted once, however often it is spread, so this costs by the document's length.
 */
export function brokenLimit(document: DocumentNode): GraphQLError | null {
  const fragments = new Map<string, FragmentDefinitionNode>();
  for (const definition of document.definitions)
    if (definition.kind === Kind.FRAGMENT_DEFINITION) fragments.set(definition.name.value, definition);
  const sizes = new Map<string, Size>();
  let introspectsTwice = false;

  const sizeOfFragment = (name: string, level: number): Size => {
    const known = sizes.get(name);
    if (known) return known;
    // One that comes back to itself adds nothing here: that it does is the check's to say.
    sizes.set(name, NOTHING);
    const size = sizeOf(fragments.get(name)?.selectionSet, level);
    sizes.set(name, size);
    return size;
  };
  const sizeOf = (set: SelectionSetNode | undefined, level: number): Size => {
    if (level > MAX_LEVELS) return { ...NOTHING, depth: Infinity };
    let { fields, aliases, depth, own, lists } = NOTHING;
    for (const node of set?.selections ?? []) {
      const below =
        node.kind === Kind.FRAGMENT_SPREAD
          ? sizeOfFragment(node.name.value, level + 1)
          : sizeOf(node.selectionSet, level + 1);
      const field = node.kind === Kind.FIELD ? node : null;
      fields += below.fields + (field ? 1 : 0);
      aliases += below.aliases + (field?.alias ? 1 : 0);
      depth = Math.max(depth, below.depth + (field ? 1 : 0));
      own += field ? 1 : below.own;
      lists = Math.max(lists, below.lists + (field && INTROSPECTED_LISTS.has(field.name.value) ? 1 : 0));
      if (field && INTROSPECTIONS.has(field.name.value) && below.lists > 1) introspectsTwice = true;
    }
    return { fields, aliases, depth, own, lists };
  };

  for (const definition of document.definitions) {
    if (definition.kind !== Kind.OPERATION_DEFINITION && definition.kind !== Kind.FRAGMENT_DEFINITION) continue;
    const { fields, aliases, depth, own } = sizeOf(definition.selectionSet, 0);
    if (fields > MAX_FIELDS)
      return over('MAX_FIELDS', MAX_FIELDS, 'The document asks for too many fields.', definition);
    if (depth > MAX_DEPTH) return over('MAX_DEPTH', MAX_DEPTH, 'The document asks for too many levels.', definition);
    if (aliases > MAX_ALIASES)
      return over('MAX_ALIASES', MAX_ALIASES, 'The document has too many aliases.', definition);
    if (own > MAX_ROOT_FIELDS && definition.kind === Kind.OPERATION_DEFINITION)
      return over('MAX_ROOT_FIELDS', MAX_ROOT_FIELDS, 'Too many fields at once. Send several requests.', definition);
  }
  if (hasDeepValue(document)) return tooDeepValue();
  return introspectsTwice
    ? over('MAX_INTROSPECTED_LISTS', 1, 'Introspection asks for lists of fields or types within such lists.')
    : null;
}

/**
 * Refuses `@skip` and `@include` where a subscription says what it follows, as the specification does by now: graphql breaks
 * where nothing is left to be followed.
 */
export function UnconditionalSubscription(context: ValidationContext): ASTVisitor {
  const isConditional = (set: SelectionSetNode, seen: Set<string>): boolean =>
    set.selections.some((node) => {
      if (node.directives?.some(({ name }) => name.value === 'skip' || name.value === 'include')) return true;
      if (node.kind === Kind.FIELD) return false;
      if (node.kind === Kind.INLINE_FRAGMENT) return isConditional(node.selectionSet, seen);
      const name = node.name.value;
      const part = seen.has(name) ? null : context.getFragment(name);
      return part ? isConditional(part.selectionSet, seen.add(name)) : false;
    });
  return {
    OperationDefinition: (node) => {
      if (node.operation !== OperationTypeNode.SUBSCRIPTION || !isConditional(node.selectionSet, new Set()))
        return false;
      context.reportError(
        new GraphQLError('What a subscription follows is not conditional: leave out @skip and @include.', {
          nodes: node,
        }),
      );
      return false;
    },
  };
}

/** Whether a value from outside is nested no deeper than `MAX_INPUT_DEPTH`. Goes through level by level, so no depth is too much for it. */
function isShallow(value: unknown): boolean {
  const isNest = (each: unknown): each is object => typeof each === 'object' && each !== null;
  let level = [value].filter(isNest);
  for (let depth = 1; level.length > 0; depth += 1) {
    if (depth > MAX_INPUT_DEPTH) return false;
    level = level.flatMap((each) => Object.values(each)).filter(isNest);
  }
  return true;
}

/** The refusal of variables that are nested deeper than MAX_INPUT_DEPTH; null for others. */
export function tooDeepVariable(variables: Readonly<Record<string, unknown>> | null | undefined): GraphQLError | null {
  return Object.values(variables ?? {}).every(isShallow) ? null : tooDeepValue();
}

function tooDeepValue(): GraphQLError {
  return over('MAX_INPUT_DEPTH', MAX_INPUT_DEPTH, 'A value is nested too deeply.');
}

/** Whether lists and objects that are written in a document are nested deeper than MAX_INPUT_DEPTH. */
function hasDeepValue(document: DocumentNode): boolean {
  let depth = 0;
  let isTooDeep = false;
  const nested = {
    enter: () => {
      depth += 1;
      if (depth <= MAX_INPUT_DEPTH) return undefined;
      isTooDeep = true;
      return BREAK;
    },
    leave: () => void (depth -= 1),
  };
  visit(document, { ListValue: nested, ObjectValue: nested, ListType: nested });
  return isTooDeep;
}
