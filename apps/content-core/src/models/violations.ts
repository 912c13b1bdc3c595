import { apiError, type CodedError } from '@atomo-cc/kernel';
import {
  COLUMN_TYPES,
  columnOf,
  conditionSql,
  fieldNamed,
  holds,
  inputName,
  snakeCase,
  sqlLiteral,
  type InputFault,
  type ModelDefinition,
  type RecordValues,
  type SchemaDefinition,
  type UniqueDefinition,
} from '@atomo-cc/schema';
import { sqlState, violatedConstraint, type Tx } from '@atomo-cc/platform/postgres';
import { ARRAY_TYPES, columnArray } from './model-columns.js';
import { checkName, declaredName, heldChecks, uniqueName } from './schema-diff.js';

/** SQLSTATEs of a row that is like another one, and of one that breaks a check. */
const [TAKEN, CHECK_BROKEN] = ['23505', '23514'];

/** What is said of each constraint of a schema, by its declared name; made once for each schema. */
const constraints = new WeakMap<SchemaDefinition, ReadonlyMap<string, readonly InputFault[]>>();

/**
 * What the caller is told when a rule that only the database can decide was broken: that a value is taken, or a check that
 * another process has put there since. VALIDATION_ERROR with a fault at each field, in the declared words; null for every
 * other error. Nothing in it is a value or the name of a table.
 */
export function violationOf(schema: SchemaDefinition, error: unknown): CodedError | null {
  const state = sqlState(error);
  const constraint = state === TAKEN || state === CHECK_BROKEN ? violatedConstraint(error) : null;
  if (constraint === null) return null;
  let known = constraints.get(schema);
  if (!known) constraints.set(schema, (known = new Map(schema.models.flatMap(faultsOf))));
  const faults = known.get(declaredName(constraint)) ?? strangeTo(schema, constraint);
  return faults ? apiError('VALIDATION_ERROR', faults[0]!.message, { faults }) : null;
}

/**
 * Which of the records that were to be made together is like another one in the values that must differ, by its place; null for an
 * error of another kind, or where the other record is gone by now.
 * @param tx of the tenant, behind the transaction that failed
 * @param records what each was to hold, by the names under which fields are written
 */
export async function placeOfTaken(
  tx: Pick<Tx, 'query'>,
  model: ModelDefinition,
  error: unknown,
  records: readonly RecordValues[],
): Promise<number | null> {
  const constraint = sqlState(error) === TAKEN ? violatedConstraint(error) : null;
  const unique = model.uniques.find(
    (each) => constraint !== null && uniqueName(model, each) === declaredName(constraint),
  );
  if (!unique) return null;
  const fields = unique.fields.map((name) => fieldNamed(model, name));
  const { where } = unique;
  const held = [...records.entries()].filter(
    ([, values]) =>
      fields.every((field) => (values[inputName(field)] ?? null) !== null) && (!where || holds(model, where, values)),
  );
  const known = new Set<string>();
  for (const [place, values] of held) {
    const key = JSON.stringify(fields.map((field) => values[inputName(field)]));
    if (known.has(key)) return place;
    known.add(key);
  }
  const names = fields.map((_, n) => `v${n}`);
  const arrays = fields.map((field, n) => `$${n + 1}::${ARRAY_TYPES[field.type] ?? 'text[]'}`);
  const alike = fields.map((field, n) => `t."${columnOf(field)}" = c.v${n}::${COLUMN_TYPES[field.type]}`);
  const among = where && conditionSql(model, where, { column: (field) => `t."${columnOf(field)}"`, value: sqlLiteral });
  const [taken] = await tx.query<{ n: number }>(
    `select c.n::int as n from unnest(${arrays.join(', ')}) with ordinality as c (${names.join(', ')}, n)
     join ${model.table} t on ${alike.join(' and ')}
     where t.deleted_at is null${among ? ` and (${among})` : ''} order by c.n limit 1`,
    fields.map((field) =>
      columnArray(
        field,
        held.map(([, values]) => values[inputName(field)]!),
      ),
    ),
  );
  return taken ? held[taken.n - 1]![0] : null;
}

/** A rule of ours that this process does not know: a newer one has declared it while this one goes on. */
function strangeTo(schema: SchemaDefinition, constraint: string): InputFault[] | null {
  const model = schema.models
    .filter(
      ({ name }) => constraint.startsWith(`uq_${snakeCase(name)}_`) || constraint.startsWith(`ck_${snakeCase(name)}_`),
    )
    .sort((a, b) => b.name.length - a.name.length)[0];
  return model ? [{ path: '', message: `The ${model.name} breaks a rule that was declared a moment ago.` }] : null;
}

function faultsOf(model: ModelDefinition): [string, InputFault[]][] {
  return [
    ...model.uniques.map((unique): [string, InputFault[]] => [
      uniqueName(model, unique),
      faultsOfUnique(model, unique),
    ]),
    ...heldChecks(model).map((check): [string, InputFault[]] => {
      const { message } = check;
      return [checkName(model, check), [{ path: inputName(fieldNamed(model, check.field)), message }]];
    }),
  ];
}

function faultsOfUnique(model: ModelDefinition, { fields, message }: UniqueDefinition): InputFault[] {
  const paths = fields.map((name) => inputName(fieldNamed(model, name)));
  const usual =
    paths.length === 1
      ? `${paths[0]}: another ${model.name} has this value already.`
      : `${paths.join(', ')}: another ${model.name} has these values already.`;
  return paths.map((path) => ({ path, message: message ?? usual }));
}
