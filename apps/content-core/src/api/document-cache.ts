import {
  GraphQLError,
  getOperationAST,
  getVariableValues,
  Kind,
  NoSchemaIntrospectionCustomRule,
  specifiedRules,
  validate,
  visit,
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  type GraphQLSchema,
} from 'graphql';
import { compileQuery, isCompiledQuery, type CompiledQuery } from 'graphql-jit';
import { isTooDeep } from '@atomo-cc/platform/lifecycle';
import type { ApiContext } from './part.js';
import { DirectOperation, type DataText } from './direct-answer.js';
import { brokenLimit, MAX_DEPTH, readDocument, tooDeepVariable, UnconditionalSubscription } from './document-limits.js';
import { lackingIn } from './role-schemas.js';
import { JsonScalar } from './scalars.js';
import type { TrustedDocuments } from './trusted-documents.js';

/** Documents that are kept parsed, checked and compiled. An application has a few hundred; ten thousand random ones cannot fill the memory. */
const CACHED_DOCUMENTS = 1_000;
/** Faults of variables that one answer lists. */
const MAX_VARIABLE_ERRORS = 20;

type Compiled = CompiledQuery | { errors: readonly GraphQLError[] };

/** What a document comes to in the schema of one role. */
interface Prepared {
  errors?: readonly GraphQLError[];
  readonly operations: Map<string, Compiled>;
  /** Null for those that are executed. */
  readonly direct: Map<string, DirectOperation | null>;
}

const RULES = [...specifiedRules, UnconditionalSubscription];
/** What graphql adds to a name that it does not know: names that it does. */
const SUGGESTION = / Did you mean .*\?$/s;

/** Parsed, checked and compiled documents by their text and the schema: the same query is prepared once. */
export class DocumentCache {
  private readonly byText = new Map<string, DocumentNode>();
  /** The trusted ones that were asked for: the manifest bounds them, and no others push them out. */
  private readonly kept = new Map<string, DocumentNode>();
  private readonly bySchema = new WeakMap<DocumentNode, Map<GraphQLSchema, Prepared>>();
  /** @param isOpen whether the schema may be looked at */
  constructor(
    private readonly isOpen: boolean,
    private readonly trusted: TrustedDocuments,
  ) {}

  parse(text: string): DocumentNode {
    const known = this.kept.get(text) ?? this.byText.get(text);
    if (known) return known;
    const document = unlessTooDeep(() => readDocument(text));
    if (this.trusted.has(text)) {
      this.kept.set(text, document);
      return document;
    }
    if (this.byText.size >= CACHED_DOCUMENTS) this.byText.delete(this.byText.keys().next().value!);
    this.byText.set(text, document);
    return document;
  }

  /** What is wrong with a text; nothing where it is not even a document. */
  faultsOf(schema: GraphQLSchema, text: string): readonly GraphQLError[] {
    try {
      return this.validate(schema, this.parse(text));
    } catch {
      return [];
    }
  }

  /** The document of a text in which nothing is wrong; null for any other. */
  soundOf(schema: GraphQLSchema, text: string): DocumentNode | null {
    try {
      const document = this.parse(text);
      return this.validate(schema, document).length === 0 ? document : null;
    } catch {
      return null;
    }
  }

  validate(schema: GraphQLSchema, document: DocumentNode): readonly GraphQLError[] {
    const prepared = this.prepared(schema, document);
    if (!prepared.errors) {
      const refused = brokenLimit(document) ?? lackingIn(schema, document);
      prepared.errors = refused ? [refused] : this.check(schema, document);
    }
    return prepared.errors;
  }

  private check(schema: GraphQLSchema, document: DocumentNode): readonly GraphQLError[] {
    if (this.isOpen) return validate(schema, document, RULES);
    return validate(schema, document, [...RULES, NoSchemaIntrospectionCustomRule]).map(
      ({ message, nodes }) => new GraphQLError(message.replace(SUGGESTION, ''), { nodes: nodes ?? null }),
    );
  }

  /** As `execute`, but where the answer is text already it is left so. */
  async answer(args: ExecutionArgs): Promise<DataText | ExecutionResult> {
    const { schema, document } = args;
    const name = args.operationName ?? '';
    const { direct } = this.prepared(schema, document);
    let operation = direct.get(name);
    if (operation === undefined)
      direct.set(name, (operation = DirectOperation.of(schema, document, args.operationName ?? null)));
    if (operation) {
      const { coerced, errors } = this.coerced(args);
      if (errors) return { errors };
      const answer = await operation.answer(coerced, args.contextValue as ApiContext);
      if (answer) return answer;
    }
    return this.execute(args);
  }

  execute(args: ExecutionArgs) {
    const { schema } = args;
    const name = args.operationName ?? '';
    const { operations } = this.prepared(schema, args.document);
    let compiled = operations.get(name);
    if (!compiled) {
      const made = compileQuery(schema, withCoercedVariables(args.document), name);
      compiled = isCompiledQuery(made) ? made : { errors: made.errors ?? [] };
      operations.set(name, compiled);
    }
    if (!('query' in compiled)) return compiled;
    const { coerced, errors } = this.coerced(args);
    if (errors) return { errors };
    return compiled.query(undefined, args.contextValue, coerced);
  }

  private coerced({
    schema,
    document,
    operationName,
    variableValues,
  }: ExecutionArgs): ReturnType<typeof getVariableValues> {
    const tooDeep = tooDeepVariable(variableValues);
    if (tooDeep) return { errors: [tooDeep] };
    const definitions = getOperationAST(document, operationName)?.variableDefinitions ?? [];
    return getVariableValues(schema, definitions, variableValues ?? {}, { maxErrors: MAX_VARIABLE_ERRORS });
  }

  private prepared(schema: GraphQLSchema, document: DocumentNode): Prepared {
    let schemas = this.bySchema.get(document);
    if (!schemas) this.bySchema.set(document, (schemas = new Map()));
    let prepared = schemas.get(schema);
    if (!prepared) schemas.set(schema, (prepared = { operations: new Map(), direct: new Map() }));
    return prepared;
  }
}

/**
 * The document as graphql-jit gets it: its variables arrive coerced, so it has nothing to check. Its own check is compiled
 * for every level of an input type, which never ends for one that holds itself, such as a condition with `and`.
 * Booleans stay, because it looks at the type of those that `@skip` and `@include` name.
 */
function withCoercedVariables(document: DocumentNode): DocumentNode {
  return visit(document, {
    VariableDefinition: (node) => {
      const type = node.type.kind === Kind.NON_NULL_TYPE ? node.type.type : node.type;
      if (type.kind === Kind.NAMED_TYPE && type.name.value === 'Boolean') return false;
      const { defaultValue: _default, ...rest } = node;
      return { ...rest, type: { kind: Kind.NAMED_TYPE, name: { kind: Kind.NAME, value: JsonScalar.name } } };
    },
  });
}

/** Reads a document. Who reads it goes down as deep as it is nested, so one can be made that no stack is deep enough for. */
function unlessTooDeep<Result>(read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    if (!isTooDeep(error)) throw error;
    const extensions = { code: 'QUERY_TOO_COMPLEX', limit: 'MAX_DEPTH', max: MAX_DEPTH };
    throw new GraphQLError('The document is nested too deeply.', { extensions });
  }
}
