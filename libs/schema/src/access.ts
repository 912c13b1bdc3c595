import {
  inputName,
  OWN_FIELDS,
  type FieldDefinition,
  type Grant,
  type ModelDefinition,
  type Operation,
  type RelationDefinition,
  type SchemaDefinition,
} from './model.js';

/**
 * What a schema's rules come to for one role: the decision behind every read, write, type and description. Whoever touches
 * records asks here and nowhere else; what is not granted here is not there for the role.
 */

/** What a role may do in an operation on a model as its rules say it; null: nothing. */
export function grantOf(model: ModelDefinition, operation: Operation, role: string): Grant | null {
  const grants = model.access[operation];
  return Object.hasOwn(grants, role) ? grants[role]! : null;
}

/** Whether a grant includes a field, named as it is declared. The id is how a record is asked for: every grant has it. */
export function grantsField(grant: Grant | null, field: string): boolean {
  return grant !== null && (grant.fields === null || field === 'id' || grant.fields.includes(field));
}

/** The rules of a schema for one role. */
export class RoleAccess {
  /**
   * The schema as the role may read it: its models have the fields, relations and computed fields that may be read, and
   * models that may not be read are missing. A relation is missing where its other end, or what ties the two, may not be read.
   */
  readonly readable: SchemaDefinition;
  private readonly byName: ReadonlyMap<string, ModelDefinition>;

  /** @param role any name; one that the schema does not declare may do nothing */
  constructor(
    readonly schema: SchemaDefinition,
    readonly role: string,
  ) {
    const models = schema.models.flatMap((model) => readableModel(schema, model, role) ?? []);
    this.readable = { ...schema, models };
    this.byName = new Map(models.map((model) => [model.name, model]));
  }

  /** The model as the role may read it, or null where it may not. */
  reads({ name }: Pick<ModelDefinition, 'name'>): ModelDefinition | null {
    return this.byName.get(name) ?? null;
  }

  /** Whether it may read one of the fields that every record has: `version`. */
  readsOwn(model: ModelDefinition, field: string): boolean {
    return grantsField(grantOf(model, 'read', this.role), field);
  }

  /**
   * What it may do: with which fields of which records; null: nothing. What may not be read cannot be updated or deleted
   * either, since for the role it is not there.
   */
  right(model: ModelDefinition, operation: Operation): Grant | null {
    if ((operation === 'update' || operation === 'delete') && !grantOf(model, 'read', this.role)) return null;
    return grantOf(model, operation, this.role);
  }

  /** The names under which it may write, `companyId` of relation `company`; no links to records that it may not read. */
  writes(model: ModelDefinition, operation: 'create' | 'update'): ReadonlySet<string> {
    const right = this.right(model, operation);
    const fields = model.fields.filter(({ name }) => grantsField(right, name)).map(inputName);
    const links = model.relations.flatMap(({ name, input, target }) =>
      input !== null && grantsField(right, name) && this.reads({ name: target }) ? [input] : [],
    );
    return new Set([...fields, ...links]);
  }
}

const known = new WeakMap<SchemaDefinition, Map<string, RoleAccess>>();

/** The rules of a schema for a role, worked out once. */
export function accessOfRole(schema: SchemaDefinition, role: string): RoleAccess {
  let roles = known.get(schema);
  if (!roles) known.set(schema, (roles = new Map()));
  // All roles that are not declared are one, or names from outside would fill the memory.
  const name = schema.roles.includes(role) ? role : '';
  let access = roles.get(name);
  if (!access) roles.set(name, (access = new RoleAccess(schema, name)));
  return access;
}

function readableModel(schema: SchemaDefinition, model: ModelDefinition, role: string): ModelDefinition | null {
  const grant = grantOf(model, 'read', role);
  if (!grant) return null;
  const isGranted = ({ name }: { readonly name: string }) => grantsField(grant, name);
  return {
    ...model,
    fields: model.fields.filter(isGranted),
    computed: model.computed.filter(isGranted),
    relations: model.relations.filter((relation) => isGranted(relation) && isFollowed(schema, relation, role)),
  };
}

/** Whether the other end of a list relation, and the fields that tie it to this one, may be read. */
function isFollowed(schema: SchemaDefinition, relation: RelationDefinition, role: string): boolean {
  const may = (name: string, ...fields: string[]) => {
    const model = schema.models.find((candidate) => candidate.name === name);
    const grant = model ? grantOf(model, 'read', role) : null;
    return grant !== null && fields.every((field) => grantsField(grant, field));
  };
  const { target, via, through, inverseOf } = relation;
  if (through && !may(through.model, through.from, through.to)) return false;
  return may(target, ...[via, inverseOf].filter((field) => field !== null));
}

/** Whether the record that a relation field points at may be read, not its id alone. */
export function followsField(access: RoleAccess, field: FieldDefinition): boolean {
  return field.target !== null && access.reads({ name: field.target }) !== null;
}

/** Names of the fields that every record has and the role may read. */
export function ownFieldsOf(access: RoleAccess, model: ModelDefinition): string[] {
  return OWN_FIELDS.filter((field) => access.readsOwn(model, field));
}
