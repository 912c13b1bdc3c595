import {
  getArgumentValues,
  getNamedType,
  getOperationAST,
  isAbstractType,
  isNonNullType,
  isObjectType,
  Kind,
  locatedError,
  OperationTypeNode,
  type DocumentNode,
  type ExecutionResult,
  type FieldNode,
  type FragmentDefinitionNode,
  type GraphQLError,
  type GraphQLField,
  type GraphQLNamedType,
  type GraphQLSchema,
  type SelectionSetNode,
} from 'graphql';
import type { ApiContext } from './part.js';
import { selectionOf, type Selection, type SelectionInfo } from './selection.js';

/**
 * Answers a field with the text of its JSON, as Postgres has written it: names in the order of the selection, and every value as
 * its type would write it. Null: it cannot, and the field is to be resolved like any other. Stands in a field's extensions
 * under `READS_TEXT`.
 */
export type TextReader = (
  args: Readonly<Record<string, unknown>>,
  context: ApiContext,
  selection: Selection,
) => Promise<string | null>;

/** The name of a `TextReader` in the extensions of a field. */
export const READS_TEXT = 'readsText';

/** An answer without errors, as the text of its `data`. */
export class DataText implements ExecutionResult {
  declare readonly errors?: readonly GraphQLError[];

  constructor(readonly text: string) {}
}

/**
 * An operation that is one field which is read as text: nothing of its answer is taken apart here and put together again.
 * All that it asks for below has the name it has in the schema, and there are no arguments, directives or resolvers, so that
 * the text is what the caller is to get.
 */
export class DirectOperation {
  private constructor(
    private readonly node: FieldNode,
    private readonly field: GraphQLField<unknown, unknown>,
    private readonly selection: Selection,
    private readonly read: TextReader,
  ) {}

  /** The operation of that name, or null when it is none of these. */
  static of(schema: GraphQLSchema, document: DocumentNode, operationName: string | null): DirectOperation | null {
    const operation = getOperationAST(document, operationName);
    const query = schema.getQueryType();
    if (operation?.operation !== OperationTypeNode.QUERY || operation.directives?.length || !query) return null;
    const [node, ...others] = operation.selectionSet.selections;
    if (node?.kind !== Kind.FIELD || others.length > 0 || node.directives?.length) return null;
    const field = query.getFields()[node.name.value];
    const read = field?.extensions[READS_TEXT] as TextReader | undefined;
    const fragments: Record<string, FragmentDefinitionNode> = {};
    for (const part of document.definitions)
      if (part.kind === Kind.FRAGMENT_DEFINITION) fragments[part.name.value] = part;
    if (!field || !read) return null;
    const info = { fieldNodes: [node], fragments, variableValues: {}, returnType: field.type, schema };
    if (!isPlain(node.selectionSet, getNamedType(field.type), info)) return null;
    return new DirectOperation(node, field, selectionOf(info), read);
  }

  /**
   * What it answers; null where it has to be executed like any other.
   * @param variables coerced
   */
  async answer(variables: Record<string, unknown>, context: ApiContext): Promise<DataText | ExecutionResult | null> {
    const key = (this.node.alias ?? this.node.name).value;
    try {
      const args = getArgumentValues(this.field, this.node, variables);
      const text = await this.read(args, context, this.selection);
      return text === null ? null : new DataText(`{"${key}":${text}}`);
    } catch (error) {
      const data = isNonNullType(this.field.type) ? null : { [key]: null };
      return { data, errors: [locatedError(error, [this.node], [key])] };
    }
  }
}

function isPlain(
  set: SelectionSetNode | undefined,
  type: GraphQLNamedType | undefined,
  { schema, fragments }: Pick<SelectionInfo, 'schema' | 'fragments'>,
): boolean {
  return (set?.selections ?? []).every((node) => {
    if (node.directives?.length) return false;
    if (node.kind === Kind.FIELD) {
      const field = isObjectType(type) ? type.getFields()[node.name.value] : undefined;
      // A field that takes arguments has several values in what is read, also where none are given; one with a
      // resolver is told otherwise than it is read, and of several types are the blocks.
      const isTold =
        field !== undefined && (field.args.length > 0 || field.resolve || isAbstractType(getNamedType(field.type)));
      return (
        node.alias === undefined &&
        !isTold &&
        isPlain(node.selectionSet, field && getNamedType(field.type), { schema, fragments })
      );
    }
    const part = node.kind === Kind.INLINE_FRAGMENT ? node : fragments[node.name.value];
    const named = part?.typeCondition ? schema.getType(part.typeCondition.name.value) : type;
    return isPlain(part?.selectionSet, named, { schema, fragments });
  });
}
