import { apiError, type CodedError } from '@atomo-cc/kernel';
import { modelStream, type NewEvent } from '@atomo-cc/events';
import {
  columnOf,
  inputName,
  linksOf,
  linkTableOf,
  modelNamed,
  type FieldValue,
  type ModelDefinition,
  type RecordValues,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { textArray, type Tx } from '@atomo-cc/platform/postgres';
import { LINK_COLUMNS } from './query-compiler.js';
import { PURGED } from './record-states.js';
import { seesSome, type Reader } from './record-access.js';
import { decideGone, decideUpdate } from './record.js';
import { lockReferences, lockRecords, referencesOf, type RecordName, type Working } from './record-rows.js';

/**
 * Records that one command may change, those included that change with them. They are one transaction, which others wait for,
 * and whose events every projection takes in one piece; a second of work or so.
 */
export const MAX_RECORDS_PER_COMMAND = 1_000;

/** What happens to one record. */
export interface RecordChange {
  readonly working: Working;
  readonly events: readonly NewEvent[];
}

/** The changes in the order of their records, or why there are none. */
export type Plan = readonly RecordChange[] | { readonly refused: CodedError };

/**
 * What becomes of all that refers to records when those go, by the rules of `onDelete`: `cascade` goes with them, `setNull` is
 * emptied, a link to them is dropped, each with an event of its own, and `restrict` refuses unless the record goes as well.
 *
 * Whoever is about to refer to a record holds a key share on its row until the commit. So once a record is locked to go,
 * all that refer to it are committed and found, and who comes later waits and finds that it is gone. Records are locked level
 * by level; two deletions that meet may deadlock, and one of them is run again.
 * @param kind `purged` takes along what goes with the record also where that is deleted already
 */
export async function planDeletion(
  tx: Tx,
  schema: SchemaDefinition,
  reader: Reader,
  roots: readonly Working[],
  kind: 'deleted' | 'purged',
): Promise<Plan> {
  const going = new Map(roots.map((working) => [streamOf(working), working]));
  const changes = new Map<string, { readonly working: Working; values: Record<string, FieldValue> }>();
  const refusals: Referrer[] = [];
  let level: readonly Working[] = roots;
  while (level.length > 0) {
    const referrers = await findReferrers(tx, schema, level, kind);
    const of = (rule: Referrer['rule']) => referrers.filter((referrer) => referrer.rule === rule);
    refusals.push(...of('restrict'));
    // Those that refuse are not looked for beyond the limit either: of so many one at least stays.
    if (refusals.length > MAX_RECORDS_PER_COMMAND) break;
    const known = going.size + changes.size;
    if (known + of('cascade').length + of('empty').length > MAX_RECORDS_PER_COMMAND) return { refused: tooMany() };
    const following = of('cascade').filter((name) => !going.has(streamOf(name)));
    const locked = await lockRecords(tx, schema, following, 'go');
    level = [...locked.values()].filter((working) => mayGo(working, kind));
    for (const working of level) going.set(streamOf(working), working);
    const emptied = of('empty');
    const kept = await lockRecords(tx, schema, emptied, 'change');
    for (const referrer of emptied) {
      const name = streamOf(referrer);
      const working = changes.get(name)?.working ?? kept.get(name);
      if (!working || working.state!.gone) continue;
      const change = changes.get(name) ?? { working, values: {} };
      const before = change.values[referrer.input] ?? working.state!.values[referrer.input] ?? null;
      change.values[referrer.input] = Array.isArray(before) ? before.filter((id) => id !== referrer.to) : null;
      changes.set(name, change);
    }
  }
  const standing = refusals.filter((referrer) => !going.has(streamOf(referrer)));
  if (standing.length > 0) return { refused: stillReferredTo(reader, standing) };
  const gone = [...going.values()].map((working) => ({
    working,
    events: decideGone(working.model, working.id, kindFor(working.model, kind)),
  }));
  const changed = [...changes.values()]
    .filter(({ working }) => !going.has(streamOf(working)))
    .map(({ working, values }) => ({
      working,
      events: decideUpdate(working.model, working.id, working.state!, values),
    }));
  return [...gone, ...changed];
}

/** What a deletion is of a model that keeps nothing of its deleted records. */
function kindFor(model: ModelDefinition, kind: 'deleted' | 'purged'): 'deleted' | 'purged' {
  return model.softDelete ? kind : 'purged';
}

function mayGo({ state }: Working, kind: 'deleted' | 'purged'): boolean {
  return kind === 'purged' ? state!.gone !== 'purged' : !state!.gone;
}

/**
 * A deleted record that is to be there again. What it refers to may have gone meanwhile: where the rule for that empties the
 * reference or drops the link, it comes back without; else what is missing is a fault.
 * @returns the values that it gets besides those it had, and those of what it refers to that are there
 */
export async function planReturn(
  tx: Tx,
  schema: SchemaDefinition,
  reader: Reader,
  { model, state }: Working,
  given: RecordValues,
): Promise<{ readonly values: RecordValues; readonly there: ReadonlyMap<string, RecordValues> }> {
  const whole = state!.gone ? { ...state!.values, ...given } : given;
  const wanted = referencesOf(schema, model, whole);
  const there = await lockReferences(
    tx,
    schema,
    wanted.map(({ target, id }) => ({ target, id, needsRow: seesSome(reader, target) })),
  );
  const values: Record<string, FieldValue> = { ...given };
  for (const { input, target } of linksOf(model)) {
    const ids = (whole[input] ?? []) as readonly string[];
    const left = ids.filter((id) => there.has(modelStream(target, id)));
    if (left.length < ids.length) values[input] = left;
  }
  for (const field of model.fields) {
    const id = whole[inputName(field)] ?? null;
    if (field.type !== 'relation' || field.onDelete !== 'setNull' || id === null || !state!.gone) continue;
    if (!there.has(modelStream(field.target!, id as string))) values[inputName(field)] = null;
  }
  return { values, there };
}

/** A record that refers to one that goes. */
interface Referrer extends RecordName {
  /** The name under which the reference is written. */
  readonly input: string;
  /** The id of what it refers to. */
  readonly to: string;
  readonly rule: 'restrict' | 'cascade' | 'empty';
}

/** What refers to a record and is there: `limit` at most by each way, by the name under which the reference is written. */
export async function referrersOf(
  tx: Tx,
  schema: SchemaDefinition,
  { model, id }: RecordName,
  limit: number,
): Promise<{ readonly model: string; readonly id: string; readonly by: string }[]> {
  const found = await findReferrers(tx, schema, [{ model, id }], 'deleted', limit);
  return found.map((referrer) => ({ model: referrer.model.name, id: referrer.id, by: referrer.input }));
}

/** All that refers to the records, and is there itself; more than the limit are not looked for. */
async function findReferrers(
  tx: Tx,
  schema: SchemaDefinition,
  level: readonly RecordName[],
  kind: 'deleted' | 'purged',
  limit = MAX_RECORDS_PER_COMMAND + 1,
): Promise<Referrer[]> {
  const found = await Promise.all(
    [...new Set(level.map(({ model }) => model))].flatMap((target) => {
      const ids = textArray(level.filter(({ model }) => model === target).map(({ id }) => id));
      return waysTo(schema, target).map(async ({ model, input, rule, from }) => {
        const there =
          rule === 'cascade' && kind === 'purged'
            ? `m.deleted_at is distinct from '${PURGED}'`
            : 'm.deleted_at is null';
        const rows = await tx.prepared<{ id: string; to: string }>(
          `select m.id, ${from} and ${there} order by m.id limit $2`,
          [ids, limit],
        );
        return rows.map((row): Referrer => ({ model, input, rule, ...row }));
      });
    }),
  );
  return found.flat();
}

/** How the records of a model may be referred to: the relations to it, and the links. */
function waysTo(schema: SchemaDefinition, target: ModelDefinition) {
  return schema.models.flatMap((model) => [
    ...model.fields
      .filter(({ type, target: name }) => type === 'relation' && name === target.name)
      .map((field) => {
        const column = `m."${columnOf(field)}"`;
        const rule: Referrer['rule'] = field.onDelete === 'setNull' ? 'empty' : (field.onDelete ?? 'restrict');
        const from = `${column} as to from ${model.table} m where ${column} = any($1::text[]::uuid[])`;
        return { model, input: inputName(field), rule, from };
      }),
    ...linksOf(model)
      .filter((relation) => modelNamed(schema, relation.target) === target)
      .map((relation) => {
        const { owner, target: linked } = LINK_COLUMNS;
        const rule: Referrer['rule'] = relation.onDelete === 'restrict' ? 'restrict' : 'empty';
        const from = `l.${linked} as to from ${linkTableOf(model, relation)} l
          join ${model.table} m on m.tenant_id = l.tenant_id and m.id = l.${owner}
          where l.${linked} = any($1::text[]::uuid[])`;
        return { model, input: relation.input, rule, from };
      }),
  ]);
}

function streamOf({ model, id }: RecordName): string {
  return modelStream(model.name, id);
}

/** What a command is told that would change more than one may. */
export function tooMany(): CodedError {
  return apiError(
    'QUERY_TOO_COMPLEX',
    `The command would change more than ${MAX_RECORDS_PER_COMMAND} records, with those that go along. Do it in several: of fewer records each, and of what refers to a record before the record itself. (MAX_RECORDS_PER_COMMAND: ${MAX_RECORDS_PER_COMMAND})`,
    { limit: 'MAX_RECORDS_PER_COMMAND', max: MAX_RECORDS_PER_COMMAND },
  );
}

/** Of what the caller may not read it is told that there is something, and no more. */
function stillReferredTo(reader: Reader, referrers: readonly Referrer[]): CodedError {
  const isKnown = ({ model, input }: Referrer) => {
    const readable = seesSome(reader, model) ? null : reader.access.reads(model);
    if (!readable) return false;
    return [...readable.fields.map(inputName), ...linksOf(readable).map((link) => link.input)].includes(input);
  };
  const known = referrers.filter(isKnown);
  const counts = new Map<string, { model: string; field: string; records: Set<string> }>();
  for (const { model, input, id } of known) {
    const key = `${model.name}.${input}`;
    const count = counts.get(key) ?? { model: model.name, field: input, records: new Set<string>() };
    counts.set(key, count);
    count.records.add(id);
  }
  const references = [...counts.values()].map(({ records, ...of }) => ({ ...of, count: records.size }));
  const said = references.map(
    ({ model, field, count }) => `${count} ${model}${count > 1 ? ' records' : ''} by ${field}`,
  );
  if (known.length < referrers.length) said.push('something that you may not see');
  return apiError('CONFLICT', `It is still referred to: ${said.join(', ')}. Change or delete those first.`, {
    references,
  });
}
