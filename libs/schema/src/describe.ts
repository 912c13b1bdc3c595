import { accessOfRole, followsField, grantsField, ownFieldsOf, type RoleAccess } from './access.js';
import { conditionFields } from './condition.js';
import { ADMIN } from './model.js';
import type {
  ActionBinding,
  BlockDefinition,
  ComputedDefinition,
  Condition,
  FieldDefinition,
  ModelDefinition,
  ModelUi,
  Operation,
  RelationDefinition,
  SchemaDefinition,
} from './model.js';

/** What the caller may do with a field. */
export interface FieldRights {
  readonly read: boolean;
  readonly create: boolean;
  readonly update: boolean;
}

/** A field as a caller may know it: what it is, how it is shown, which rules its values must meet, and what the caller may do. */
export type FieldDescription = FieldDefinition & { readonly can: FieldRights };

/** A model as a caller may know it. */
export interface ModelDescription {
  readonly name: string;
  readonly singular: string;
  readonly plural: string;
  readonly description: string | null;
  readonly softDelete: boolean;
  readonly ui: ModelUi | null;
  /** Which of the fields that every record has the caller may read. */
  readonly own: readonly string[];
  readonly fields: readonly FieldDescription[];
  readonly relations: readonly (RelationDefinition & { readonly can: FieldRights })[];
  readonly computed: readonly ComputedDefinition[];
  /** Fields that together tell records apart; `isPartial`: only among some. */
  readonly uniques: readonly { readonly fields: readonly string[]; readonly isPartial: boolean }[];
  /** Fields by which its records are found and ordered fast, besides relations and what is unique. */
  readonly indexes: readonly (readonly string[])[];
  readonly checks: readonly { readonly condition: Condition; readonly message: string; readonly field: string }[];
  /** What is done when a record was created, updated or deleted: of what the caller may do, and names no field that is hidden. */
  readonly actions: readonly ActionBinding[];
  /** What the caller may do: with `all` records, with `some` (a rule decides which), or with none. */
  readonly access: Readonly<Record<Operation, 'all' | 'some' | 'none'>>;
}

/** A schema as a caller may know it. */
export interface SchemaDescription {
  readonly version: SchemaDefinition['version'];
  readonly role: string;
  /** The roles that users can be given; for Admin, who gives them. */
  readonly roles: readonly string[];
  readonly models: readonly ModelDescription[];
  /** The types of block that its fields may hold. */
  readonly blocks: readonly BlockDefinition[];
}

/**
 * The schema for who has `role`, as data for tools that draw lists and forms. It says nothing about tables or the rules of others;
 * models and fields that the role may neither read nor write are left out, and so is every rule that names such a field.
 */
export function describeSchema(schema: SchemaDefinition, role: string): SchemaDescription {
  const access = accessOfRole(schema, role);
  const models = schema.models.flatMap((model) => describeModel(access, model) ?? []);
  const blocks = new Map<string, BlockDefinition>();
  for (const model of schema.models) {
    const visible = models.find(({ name }) => name === model.name)?.fields ?? [];
    for (const block of reachableBlocks(model, visible)) blocks.set(block.name, block);
  }
  const roles = role === ADMIN ? schema.roles : [];
  return { version: schema.version, role, roles, models, blocks: [...blocks.values()] };
}

function describeModel(role: RoleAccess, model: ModelDefinition): ModelDescription | null {
  const grants = {
    read: role.right(model, 'read'),
    create: role.right(model, 'create'),
    update: role.right(model, 'update'),
    delete: role.right(model, 'delete'),
  };
  if (Object.values(grants).every((grant) => grant === null)) return null;
  const rights = (name: string, isWritable = true): FieldRights => ({
    read: grantsField(grants.read, name),
    create: isWritable && grantsField(grants.create, name),
    update: isWritable && grantsField(grants.update, name),
  });
  const isAny = ({ read, create, update }: FieldRights) => read || create || update;
  const followed = new Set(role.reads(model)?.relations.map(({ name }) => name));
  const fields = model.fields
    .map((field) => ({ ...field, formerly: [], can: rights(field.name) }))
    .filter(({ can }) => isAny(can))
    // Of a record that cannot be read there is the id alone.
    .map((field) => (field.target === null || followsField(role, field) ? field : { ...field, target: null }))
    // A slug's scope and a default say something of other fields and values, which is meant for who may write.
    .map((field) => (field.can.create || field.can.update ? field : { ...field, default: null, slug: null }));
  const relations = model.relations
    .map((relation) => {
      const can = rights(relation.name, relation.input !== null);
      return { ...relation, can: { ...can, read: followed.has(relation.name) } };
    })
    .filter(({ can, target }) => isAny(can) && role.reads({ name: target }) !== null);
  const computed = model.computed.filter(({ name }) => grantsField(grants.read, name));
  const known = new Set([...fields, ...relations, ...computed].map(({ name }) => name));
  const isKnown = (names: readonly string[]) => names.every((name) => known.has(name));
  const access = Object.fromEntries(
    Object.entries(grants).map(([operation, grant]) => [
      operation,
      grant === null ? 'none' : grant.where === null ? 'all' : 'some',
    ]),
  ) as ModelDescription['access'];
  const { name, singular, plural, description, softDelete, ui } = model;
  const own = grants.read ? ownFieldsOf(role, model) : [];
  return {
    name,
    singular,
    plural,
    description,
    softDelete,
    ui: ui && describeUi(ui, new Set([...known, ...own])),
    own,
    fields,
    relations,
    // How it is made may name what is hidden.
    computed: computed.map((field) =>
      isKnown(field.expression.parts.flatMap((part) => ('field' in part ? [part.field] : [])))
        ? field
        : { ...field, expression: { op: field.expression.op, parts: [] } },
    ),
    uniques: model.uniques
      .filter((unique) => isKnown([...unique.fields, ...(unique.where ? conditionFields(unique.where) : [])]))
      .map((unique) => ({ fields: unique.fields, isPartial: unique.where !== null })),
    indexes: model.indexes.filter(isKnown),
    checks: model.checks.filter(({ condition }) => isKnown(conditionFields(condition))),
    actions: model.actions.filter(
      ({ event, changedAny, fieldEquals }) =>
        grants[SET_OFF_BY[event]] !== null && isKnown([...(changedAny ?? []), ...Object.keys(fieldEquals ?? {})]),
    ),
    access,
  };
}

/** By which operation an action's event comes about. */
const SET_OFF_BY = { created: 'create', updated: 'update', deleted: 'delete' } as const;

function describeUi({ title, list, ...words }: ModelUi, known: ReadonlySet<string>): ModelUi {
  return {
    ...words,
    ...(title !== undefined && known.has(title) ? { title } : {}),
    ...(list ? { list: list.filter((name) => known.has(name)) } : {}),
  };
}

function reachableBlocks(model: ModelDefinition, fields: readonly FieldDefinition[]): BlockDefinition[] {
  const found = new Set<BlockDefinition>();
  const visit = (field: FieldDefinition): void => {
    for (const name of field.blocks ?? []) {
      const block = model.blocks.find((candidate) => candidate.name === name);
      if (!block || found.has(block)) continue;
      found.add(block);
      block.fields.forEach(visit);
    }
  };
  fields.forEach(visit);
  return [...found];
}
