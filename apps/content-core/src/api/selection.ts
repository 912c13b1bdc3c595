import {
  getArgumentValues,
  getDirectiveValues,
  getNamedType,
  GraphQLIncludeDirective,
  GraphQLSkipDirective,
  isObjectType,
  Kind,
  type FieldNode,
  type FragmentDefinitionNode,
  type GraphQLNamedType,
  type GraphQLResolveInfo,
  type SelectionSetNode,
} from 'graphql';

/**
 * The fields asked for below a field, by name; a field of records has the fields asked for below it. A field that takes
 * arguments has a level between, by the keys of its arguments (`argumentsOf`): under aliases it may stand there several times.
 */
export type Selection = ReadonlyMap<string, Selection>;

/** What a resolver is told of the document it serves. */
export type SelectionInfo = Pick<
  GraphQLResolveInfo,
  'fieldNodes' | 'fragments' | 'variableValues' | 'returnType' | 'schema'
>;

/**
 * The selection below the field being resolved: fragments are followed, `@skip` and `@include` applied, and fields that
 * stand there several times (under aliases) are one, as far as their arguments are the same.
 * @throws GraphQLError for an argument that its type refuses
 */
export function selectionOf(info: SelectionInfo): Selection {
  const selection: Collected = new Map();
  for (const node of info.fieldNodes) collect(node.selectionSet, getNamedType(info.returnType), info, selection);
  return selection;
}

/** The arguments, as their types read them, that a key of a selection stands for. */
export function argumentsOf(key: string): Readonly<Record<string, unknown>> {
  return JSON.parse(key) as Record<string, unknown>;
}

/** The key under which the field being resolved stands in its parent's selection. */
export function argumentsKeyOf(
  info: Pick<GraphQLResolveInfo, 'fieldNodes' | 'variableValues' | 'parentType' | 'fieldName'>,
): string {
  const field = info.parentType.getFields()[info.fieldName]!;
  return JSON.stringify(getArgumentValues(field, info.fieldNodes[0]!, info.variableValues));
}

interface Collected extends Map<string, Collected> {}

function collect(
  set: SelectionSetNode | undefined,
  type: GraphQLNamedType | undefined,
  info: SelectionInfo,
  into: Collected,
): void {
  for (const node of set?.selections ?? []) {
    const skip = getDirectiveValues(GraphQLSkipDirective, node, info.variableValues);
    const include = getDirectiveValues(GraphQLIncludeDirective, node, info.variableValues);
    if (skip?.['if'] === true || include?.['if'] === false) continue;
    if (node.kind === Kind.FIELD) {
      collectField(node, type, info, into);
      continue;
    }
    const part = node.kind === Kind.INLINE_FRAGMENT ? node : fragment(node.name.value, info);
    const named = part?.typeCondition ? info.schema.getType(part.typeCondition.name.value) : type;
    collect(part?.selectionSet, named, info, into);
  }
}

function collectField(node: FieldNode, type: GraphQLNamedType | undefined, info: SelectionInfo, into: Collected): void {
  const field = isObjectType(type) ? type.getFields()[node.name.value] : undefined;
  let below = entry(into, node.name.value);
  if (field && field.args.length > 0)
    below = entry(below, JSON.stringify(getArgumentValues(field, node, info.variableValues)));
  collect(node.selectionSet, field && getNamedType(field.type), info, below);
}

function entry(of: Collected, name: string): Collected {
  const known = of.get(name);
  if (known) return known;
  const made: Collected = new Map();
  of.set(name, made);
  return made;
}

function fragment(name: string, info: SelectionInfo): FragmentDefinitionNode | undefined {
  return info.fragments[name];
}

/** The selection at a path below, or an empty one: `selectionAt(s, 'edges', 'node')`. */
export function selectionAt(selection: Selection, ...path: string[]): Selection {
  return path.reduce<Selection>((below, name) => below.get(name) ?? new Map(), selection);
}

/** Both selections as one. */
export function mergeSelections(a: Selection, b: Selection): Selection {
  const merged = new Map(a);
  for (const [name, below] of b) merged.set(name, mergeSelections(merged.get(name) ?? new Map(), below));
  return merged;
}
