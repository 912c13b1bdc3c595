import { apiError, type CodedError } from '@atomo-cc/kernel';
import {
  fieldNamed,
  inputName,
  snakeCase,
  type InputFault,
  type ModelDefinition,
  type SchemaDefinition,
  type UniqueDefinition,
} from '@atomo-cc/schema';
import { sqlState, violatedConstraint } from '@atomo-cc/platform/postgres';
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
