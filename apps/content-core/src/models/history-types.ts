import { GraphQLInt, GraphQLList, GraphQLNonNull, GraphQLObjectType, type GraphQLFieldConfigMap } from 'graphql';
import { apiError } from '@atomo-cc/kernel';
import type { ModelDefinition, RoleAccess } from '@atomo-cc/schema';
import {
  connectionOf,
  connectionType,
  DateTimeScalar,
  decodeCursor,
  encodeCursor,
  JsonScalar,
  required,
} from '../api/index.js';
import type { FieldChange, HistoryEntry } from './history.js';

const FieldChangeType = new GraphQLObjectType<FieldChange>({
  name: 'FieldChange',
  description: 'What one field was before, and what it was then. A value that was erased since is null.',
  fields: {
    field: { type: required.string, description: 'The name under which the field is written.' },
    before: { type: JsonScalar },
    after: { type: JsonScalar },
  },
});

/**
 * The connection of a model's history.
 * @param ownFields the fields of a record without the records it belongs to. Those had versions of their own: who wants them
 * as they were asks for the record as of `recordedAt`, and gets all of one time.
 */
export function historyConnection(
  model: ModelDefinition,
  access: RoleAccess,
  ownFields: () => GraphQLFieldConfigMap<unknown, unknown>,
): GraphQLObjectType {
  const record = new GraphQLObjectType({
    name: `${model.name}AtVersion`,
    description: `What a ${model.name} was at one version. For the records it belonged to, ask with asOf.`,
    fields: ownFields,
  });
  const entry = new GraphQLObjectType<HistoryEntry>({
    name: `${model.name}HistoryEntry`,
    description: `One version of a ${model.name}, and who made it.`,
    fields: {
      ...(access.readsOwn(model, 'version') && { version: { type: required.int } }),
      type: { type: required.string, description: `The event: ${model.name}.created and its kin.` },
      action: { type: required.string, description: 'created, updated, restored, deleted, purged or erased.' },
      ...(access.readsOwn(model, 'updatedAt') && { recordedAt: { type: new GraphQLNonNull(DateTimeScalar) } }),
      actor: { type: required.string, description: 'user:<id>, key:<id> or system:<part>.' },
      requestId: { type: required.string, description: 'That of the request which made it.' },
      ...(access.readsOwn(model, 'version') && {
        restoredVersion: { type: GraphQLInt, description: 'The version whose values it has again, if restored.' },
      }),
      changes: { type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(FieldChangeType))) },
      record: { type: new GraphQLNonNull(record) },
    },
  });
  return connectionType(`${model.name}History`, entry, `The versions of a ${model.name}, newest first.`);
}

/** A page of a history out of entries that were read one beyond its size. It goes on where more may be found further down. */
export function historyPage(
  model: ModelDefinition,
  { entries, lookedTo }: { readonly entries: readonly HistoryEntry[]; readonly lookedTo: number | null },
  size: number,
  isFirst: boolean,
) {
  const cursorOf = (version: number) => encodeCursor(orderOf(model), [version]);
  const connection = connectionOf(entries, size, ({ version }) => cursorOf(version), isFirst);
  if (lookedTo === null || entries.length > size) return connection;
  return { ...connection, pageInfo: { ...connection.pageInfo, hasNextPage: true, endCursor: cursorOf(lookedTo) } };
}

/** The version that a cursor of a history stands for. @throws CodedError VALIDATION_ERROR */
export function versionOf(model: ModelDefinition, cursor: string): number {
  const [version, ...rest] = decodeCursor(orderOf(model), cursor);
  const isOurs = Number.isInteger(version) && (version as number) >= 1 && (version as number) < 2 ** 31;
  if (!isOurs || rest.length > 0)
    throw apiError('VALIDATION_ERROR', 'This is no cursor of ours. Pass an endCursor or a cursor of an edge.');
  return version as number;
}

function orderOf(model: ModelDefinition): string {
  return `${model.name} history`;
}
