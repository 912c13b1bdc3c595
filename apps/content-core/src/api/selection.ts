import {
  getDirectiveValues,
  GraphQLIncludeDirective,
  GraphQLSkipDirective,
  Kind,
  type FieldNode,
  type FragmentDefinitionNode,
  type GraphQLResolveInfo,
  type SelectionSetNode,
} from 'graphql';

/** The fields asked for below a field, by name; a field of records has the fields asked for below it. */
export type Selection = ReadonlyMap<string, Selection>;

/** What a resolver is told of the document it serves. */
export type SelectionInfo = Pick<GraphQLResolveInfo, 'fieldNodes' | 'fragments' | 'variableValues'>;

/**
 * The selection below the field being resolved: fragments are followed, `@skip` and `@include` applied, and fields that
 * stand there several times (under aliases) are one. That is enough while nested fields take no arguments.
 */
export function selectionOf(info: SelectionInfo): Selection {
  const selection = new Map<string, Map<string, never>>();
  for (const node of info.fieldNodes) collect(node.selectionSet, info, selection);
  return selection;
}

interface Collected extends Map<string, Collected> {}

function collect(set: SelectionSetNode | undefined, info: SelectionInfo, into: Collected): void {
  for (const node of set?.selections ?? []) {
    const skip = getDirectiveValues(GraphQLSkipDirective, node, info.variableValues);
    const include = getDirectiveValues(GraphQLIncludeDirective, node, info.variableValues);
    if (skip?.['if'] === true || include?.['if'] === false) continue;
    if (node.kind === Kind.FIELD) collectField(node, info, into);
    else
      collect(
        node.kind === Kind.INLINE_FRAGMENT ? node.selectionSet : fragment(node.name.value, info)?.selectionSet,
        info,
        into,
      );
  }
}

function collectField(node: FieldNode, info: SelectionInfo, into: Collected): void {
  const name = node.name.value;
  const below: Collected = into.get(name) ?? new Map();
  into.set(name, below);
  collect(node.selectionSet, info, below);
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
