import {
  GraphQLBoolean,
  GraphQLEnumType,
  GraphQLFloat,
  GraphQLID,
  GraphQLInputObjectType,
  GraphQLInt,
  GraphQLList,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLString,
  GraphQLUnionType,
  type GraphQLFieldConfig,
  type GraphQLFieldConfigMap,
  type GraphQLInputFieldConfigMap,
  type GraphQLInputType,
  type GraphQLScalarType,
} from 'graphql';
import {
  blocksViewOf,
  followsField,
  inputName,
  isDemanded,
  linksOf,
  ownFieldsOf,
  type BlockDefinition,
  type ComputedDefinition,
  type FieldDefinition,
  type ModelDefinition,
  type RelationDefinition,
  type RoleAccess,
} from '@atomo-cc/schema';
import { argumentsKeyOf, DateScalar, DateTimeScalar, JsonScalar, PageInfo } from '../api/index.js';
import { historyConnection } from './history-types.js';
import { ModelDocs } from './model-docs.js';
import { PLACE_OPERATORS } from './places.js';
import { AGGREGATES, isGroupable, isNumeric, searchedFields } from './query-compiler.js';

/** The fields that every record has. */
const OWN_FIELDS = {
  id: { type: new GraphQLNonNull(GraphQLID) },
  version: { type: new GraphQLNonNull(GraphQLInt), description: 'Grows by one with every change.' },
  createdAt: { type: new GraphQLNonNull(DateTimeScalar) },
  updatedAt: { type: new GraphQLNonNull(DateTimeScalar) },
};

const DELETED_AT = { type: DateTimeScalar, description: 'When it was deleted; null where it is there.' };

const IDS = new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(GraphQLID)));

/**
 * The GraphQL types of a schema's models for one role, each made once. What the role may not read or write has no place in
 * them, so neither a document nor the answer to a faulty one can name it. The models given are those of `access.readable`.
 */
export class ModelTypes {
  private readonly made = new Map<string, unknown>();
  private readonly docs: ModelDocs;

  constructor(private readonly access: RoleAccess) {
    this.docs = new ModelDocs(access);
  }

  record(model: ModelDefinition): GraphQLObjectType {
    return this.once(
      model.name,
      () =>
        new GraphQLObjectType({
          name: model.name,
          description: this.docs.model(model),
          fields: () => ({
            ...this.own(model),
            ...Object.fromEntries(model.fields.flatMap((field) => this.outputFields(model, field))),
            ...Object.fromEntries(model.fields.flatMap((field) => this.blocksView(model, field))),
            ...Object.fromEntries(
              model.computed.map((computed) => [
                computed.name,
                { type: GraphQLString, description: this.docs.computed(model, computed) },
              ]),
            ),
            ...Object.fromEntries(model.relations.map((relation) => [relation.name, this.list(relation)])),
          }),
        }),
    );
  }

  history(model: ModelDefinition): GraphQLObjectType {
    return this.once(`${model.name}HistoryConnection`, () =>
      historyConnection(model, this.access, () => ({
        ...this.own(model),
        ...Object.fromEntries(model.fields.map((field) => this.outputFields(model, field)[0]!)),
        ...Object.fromEntries(linksOf(model).map(({ input, description }) => [input, { type: IDS, description }])),
      })),
    );
  }

  connection(model: ModelDefinition): GraphQLObjectType {
    return this.once(`${model.name}Connection`, () => {
      const record = new GraphQLNonNull(this.record(model));
      const edge = new GraphQLObjectType({
        name: `${model.name}Edge`,
        fields: { node: { type: record }, cursor: { type: new GraphQLNonNull(GraphQLString) } },
      });
      return new GraphQLObjectType({
        name: `${model.name}Connection`,
        description: `A page of ${model.plural}.`,
        fields: {
          nodes: { type: new GraphQLNonNull(new GraphQLList(record)) },
          edges: { type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(edge))) },
          pageInfo: { type: new GraphQLNonNull(PageInfo) },
          totalCount: { type: new GraphQLNonNull(GraphQLInt), description: 'Counted only when asked for.' },
        },
      });
    });
  }

  /**
   * What a command about many records answers.
   * @param record of the model, or what stands for it
   */
  batch(model: ModelDefinition, record: GraphQLObjectType): GraphQLObjectType {
    return this.once(
      `${model.name}Batch`,
      (name) =>
        new GraphQLObjectType({
          name,
          description: `Some ${model.plural} that were changed together.`,
          fields: {
            count: { type: new GraphQLNonNull(GraphQLInt) },
            nodes: {
              type: new GraphQLNonNull(new GraphQLList(record)),
              description:
                'In the order of the inputs, else of their ids. Null where you may not see the record as it is then.',
            },
          },
        }),
    );
  }

  /** The groups of a model's records. */
  aggregate(model: ModelDefinition): GraphQLObjectType {
    return this.once(`${model.name}Aggregate`, (name) => {
      const numeric = [...model.fields, ...model.computed].filter(isNumeric);
      const fields: GraphQLFieldConfigMap<unknown, unknown> = {
        count: { type: new GraphQLNonNull(GraphQLInt) },
      };
      const group = new GraphQLObjectType({
        name: `${name}Group`,
        description: 'The values that the records of a group share; null also in fields that were not grouped by.',
        fields: Object.fromEntries(
          groupable(model).map((field) => {
            const description = this.docs.subject(model, valueName(field), field, 'What they share of');
            return [valueName(field), { type: this.scalar(model, field), description }];
          }),
        ),
      });
      if (groupable(model).length > 0) fields['group'] = { type: new GraphQLNonNull(group) };
      for (const measure of numeric.length === 0 ? [] : AGGREGATES) {
        // The sum of integers may be larger than one, and their mean is none.
        const isWide = measure === 'sum' || measure === 'avg';
        const own = numeric.map((field): [string, GraphQLFieldConfig<unknown, unknown>] => {
          const type = field.type === 'integer' && isWide ? GraphQLFloat : this.scalar(model, field);
          return [field.name, { type, description: this.docs.subject(model, field.name, field, MEASURES[measure]) }];
        });
        const type = new GraphQLObjectType({
          name: `${name}${capital(measure)}`,
          description: 'Null where no record of the group has a value.',
          fields: Object.fromEntries(own),
        });
        fields[measure] = { type: new GraphQLNonNull(type) };
      }
      return new GraphQLObjectType({ name, description: `A group of ${model.plural}.`, fields });
    });
  }

  /** The fields by which a model's records can be grouped; null if there are none. */
  groupField(model: ModelDefinition): GraphQLEnumType | null {
    const names = groupable(model).map(valueName);
    if (names.length === 0) return null;
    return this.once(
      `${model.name}AggregateField`,
      (name) =>
        new GraphQLEnumType({
          name,
          description: `The fields by whose values ${model.plural} can be grouped.`,
          values: Object.fromEntries(names.map((field) => [field, {}])),
        }),
    );
  }

  /** What a role answers for a record that it has made and may not read: how others find it. */
  receipt(model: ModelDefinition): GraphQLObjectType {
    const description = `A ${model.name}, of which you may know nothing else.`;
    return this.once(model.name, (name) => new GraphQLObjectType({ name, description, fields: { id: OWN_FIELDS.id } }));
  }

  /**
   * What the role may write; null: nothing.
   * @param model with all its fields: some may be written by who may not read them
   */
  input(model: ModelDefinition, mode: 'create' | 'update'): GraphQLInputObjectType | null {
    if (this.access.writes(model, mode).size === 0) return null;
    return this.once(`${mode === 'create' ? 'Create' : 'Update'}${model.name}Input`, (name) => {
      const fields: GraphQLInputFieldConfigMap = {};
      const written = this.access.writes(model, mode);
      for (const field of model.fields.filter((each) => written.has(inputName(each)))) {
        const type = this.scalar(model, field);
        const isNeeded = mode === 'create' && isDemanded(field);
        fields[inputName(field)] = {
          type: isNeeded ? new GraphQLNonNull(type) : type,
          description: this.docs.field(model, field),
        };
      }
      for (const { input, target, description } of linksOf(model).filter((each) => written.has(each.input))) {
        const told = `The ids of ${this.target(target).plural}, in no order, each once; all that it is to be linked to.`;
        fields[input] = {
          type: new GraphQLList(new GraphQLNonNull(GraphQLID)),
          description: description === null ? told : `${description} ${told}`,
        };
      }
      const description =
        mode === 'create'
          ? `What a new ${model.name} is made with.`
          : `What is to be changed of a ${model.name}. What is left out stays as it is; null empties a field.`;
      return new GraphQLInputObjectType({ name, description, fields });
    });
  }

  where(model: ModelDefinition): GraphQLInputObjectType {
    return this.once(
      `${model.name}Where`,
      (name) =>
        new GraphQLInputObjectType({
          name,
          description: `Conditions on ${model.plural}; all that are given must hold.`,
          fields: (): GraphQLInputFieldConfigMap => ({
            and: { type: new GraphQLList(new GraphQLNonNull(this.where(model))) },
            or: { type: new GraphQLList(new GraphQLNonNull(this.where(model))) },
            not: { type: this.where(model) },
            ...(searchedFields(model).length > 0 && {
              search: { type: GraphQLString, description: this.docs.search(searchedFields(model)) },
            }),
            id: { type: this.filter('ID', GraphQLID, ['equals', 'not', 'in', 'notIn']) },
            ...Object.fromEntries(
              this.ownTimes(model).map((own) => [own, { type: this.filter('DateTime', DateTimeScalar, ORDERED) }]),
            ),
            ...(this.readsDeletedAt(model) && {
              deletedAt: { type: this.filter('DateTimeField', DateTimeScalar, [...ORDERED, 'isNull']) },
            }),
            ...Object.fromEntries(
              model.fields.flatMap((field) => [
                [
                  inputName(field),
                  {
                    type: this.fieldFilter(model, field),
                    description: this.docs.subject(model, inputName(field), field, 'A condition on'),
                  },
                ],
                ...(followsField(this.access, field)
                  ? [
                      [
                        field.name,
                        {
                          type: this.relationFilter(field.target!, ONE),
                          description: `A condition on the ${field.target} in \`${field.name}\`.`,
                        },
                      ],
                    ]
                  : []),
              ]),
            ),
            ...Object.fromEntries(
              model.computed.map((computed) => [
                computed.name,
                {
                  type: this.fieldFilter(model, computed),
                  description: this.docs.subject(model, computed.name, computed, 'A condition on'),
                },
              ]),
            ),
            ...Object.fromEntries(
              model.relations.map(({ name: of, target }) => [
                of,
                {
                  type: this.relationFilter(target, MANY),
                  description: `A condition on the ${this.target(target).plural} in \`${of}\`.`,
                },
              ]),
            ),
          }),
        }),
    );
  }

  order(model: ModelDefinition): GraphQLInputObjectType {
    return this.once(`${model.name}Order`, (name) => {
      const names = [
        'id',
        ...this.ownTimes(model),
        ...(this.readsDeletedAt(model) ? ['deletedAt'] : []),
        ...groupable(model)
          .filter(({ type }) => type !== 'relation')
          .map(valueName),
      ];
      return new GraphQLInputObjectType({
        name,
        description: 'Exactly one field an entry. Records without a value come last either way.',
        fields: Object.fromEntries(
          names.map((field) => [field, { type: this.direction(), description: `By \`${field}\`.` }]),
        ),
      });
    });
  }

  /** Those of the fields that every record has which may be read. */
  private own(model: ModelDefinition): GraphQLFieldConfigMap<unknown, unknown> {
    const own = Object.fromEntries(
      ownFieldsOf(this.access, model).map((name) => [name, OWN_FIELDS[name as keyof typeof OWN_FIELDS]]),
    );
    return this.readsDeletedAt(model) ? { ...own, deletedAt: DELETED_AT } : own;
  }

  /** A rule that lists fields lists all that may be read, and this is none that it could list. */
  private readsDeletedAt(model: ModelDefinition): boolean {
    return this.readsDeleted(model) && this.access.readsOwn(model, 'deletedAt');
  }

  /** Whether the role may look at deleted records: whoever may delete one, and bring it back. */
  readsDeleted(model: ModelDefinition): boolean {
    return this.access.right(model, 'delete') !== null;
  }

  private ownTimes(model: ModelDefinition): string[] {
    return ['createdAt', 'updatedAt'].filter((name) => this.access.readsOwn(model, name));
  }

  private outputFields(
    model: ModelDefinition,
    field: FieldDefinition,
  ): [string, GraphQLFieldConfig<unknown, unknown>][] {
    // A row older than the demand may lack the value, so nothing but the API's own fields is promised to be there.
    const description = this.docs.field(model, field);
    const own = [inputName(field), { type: this.scalar(model, field), description }] as const;
    if (!followsField(this.access, field)) return [[...own]];
    const target = this.target(field.target!);
    const followed = field.description ?? `The ${target.name} that \`${inputName(field)}\` names.`;
    return [[...own], [field.name, { type: this.record(target), description: followed }]];
  }

  /** The blocks of a field by their types; the field itself has them as the JSON in which they are written. */
  private blocksView(model: ModelDefinition, field: FieldDefinition): [string, GraphQLFieldConfig<unknown, unknown>][] {
    const name = blocksViewOf(model, field);
    if (name === null) return [];
    const described = field.description === null ? '' : `${field.description} `;
    return [
      [
        name,
        {
          type: this.blockList(model, `${model.name}${capital(field.name)}Block`, field),
          description: `${described}The blocks of ${field.name} by their types, in their order.`,
          resolve: (source) => (source as Readonly<Record<string, unknown>>)[field.name],
        },
      ],
    ];
  }

  private blockList(model: ModelDefinition, name: string, field: FieldDefinition) {
    const blocks = model.blocks.filter((block) => field.blocks!.includes(block.name));
    const union = this.once(
      name,
      () =>
        new GraphQLUnionType({
          name,
          description: `What may stand in ${field.name}.`,
          types: () => [...blocks.map((block) => this.block(model, block)), this.unknownBlock()],
          resolveType: (value) => {
            const { type } = value as { readonly type?: unknown };
            return blocks.some((block) => block.name === type) ? `${String(type)}Block` : 'UnknownBlock';
          },
        }),
    );
    return new GraphQLList(new GraphQLNonNull(union));
  }

  private block(model: ModelDefinition, block: BlockDefinition): GraphQLObjectType {
    return this.once(
      `${block.name}Block`,
      (name) =>
        new GraphQLObjectType({
          name,
          description: block.description ?? `A block of the type ${block.name}.`,
          fields: () => ({
            type: { type: new GraphQLNonNull(GraphQLString), description: block.name },
            ...Object.fromEntries(
              block.fields.map((field) => [
                field.name,
                {
                  type:
                    field.type === 'blocks'
                      ? this.blockList(model, `${name}${capital(field.name)}`, field)
                      : this.scalar({ name }, field),
                  description: this.docs.blockField(field),
                },
              ]),
            ),
          }),
        }),
    );
  }

  /** So that content outlives a change of the schema. */
  private unknownBlock(): GraphQLObjectType {
    return this.once(
      'UnknownBlock',
      (name) =>
        new GraphQLObjectType({
          name,
          description: 'A block of a type that may stand here no more.',
          fields: {
            type: { type: new GraphQLNonNull(GraphQLString), description: 'The type that it had.' },
            value: {
              type: new GraphQLNonNull(JsonScalar),
              description: 'All of it, as it was written.',
              resolve: (source) => source as unknown,
            },
          },
        }),
    );
  }

  /** The records of a list relation, below a record. The compiler has made all lists that were asked for, by their arguments. */
  private list({ name, target: targetName, description }: RelationDefinition): GraphQLFieldConfig<unknown, unknown> {
    const target = this.target(targetName);
    const type = this.once(
      `${target.name}List`,
      (typeName) =>
        new GraphQLObjectType({
          name: typeName,
          description: `The first of the ${target.plural} of a record. To go on, list ${target.plural} with a condition.`,
          fields: () => ({
            nodes: { type: new GraphQLNonNull(new GraphQLList(new GraphQLNonNull(this.record(target)))) },
            totalCount: { type: new GraphQLNonNull(GraphQLInt), description: 'Counted only when asked for.' },
          }),
        }),
    );
    return {
      type: new GraphQLNonNull(type),
      description: description ?? `The ${target.plural} that belong to it.`,
      args: {
        where: { type: this.where(target) },
        orderBy: { type: new GraphQLList(new GraphQLNonNull(this.order(target))) },
        first: { type: GraphQLInt, description: 'How many, 1 to 100; 20 unless given.' },
      },
      resolve: (source, _args, _context, info) =>
        (source as Readonly<Record<string, Readonly<Record<string, unknown>>>>)[name]![argumentsKeyOf(info)],
    };
  }

  /** The model at the other end of a relation that the role may follow. */
  private target(name: string): ModelDefinition {
    return this.access.reads({ name })!;
  }

  private relationFilter(targetName: string, kind: typeof ONE | typeof MANY): GraphQLInputObjectType {
    const target = this.target(targetName);
    return this.once(
      `${target.name}${kind.name}`,
      (name) =>
        new GraphQLInputObjectType({
          name,
          fields: () =>
            Object.fromEntries(
              Object.entries(kind.operators).map(([operator, description]) => [
                operator,
                { type: this.where(target), description },
              ]),
            ),
        }),
    );
  }

  private scalar(
    model: Pick<ModelDefinition, 'name'>,
    field: FieldDefinition | ComputedDefinition,
  ): GraphQLScalarType | GraphQLEnumType {
    switch (field.type) {
      case 'text':
      case 'richText':
      case 'email':
      case 'url':
      case 'slug':
      case 'decimal':
        return GraphQLString;
      case 'integer':
        return GraphQLInt;
      case 'number':
        return GraphQLFloat;
      case 'json':
      case 'geoPoint':
      case 'blocks':
        return JsonScalar;
      case 'datetime':
        return DateTimeScalar;
      case 'file':
        return GraphQLID;
      case 'boolean':
        return GraphQLBoolean;
      case 'date':
        return DateScalar;
      case 'relation':
        return GraphQLID;
      case 'enum':
        return this.once(
          `${model.name}${capital(field.name)}`,
          (name) =>
            new FieldEnumType({
              name,
              description: `What \`${model.name}.${field.name}\` may be.`,
              values: Object.fromEntries(field.values!.map((value) => [value, {}])),
            }),
        );
    }
  }

  private fieldFilter(model: ModelDefinition, field: FieldDefinition | ComputedDefinition): GraphQLInputObjectType {
    switch (field.type) {
      case 'text':
      case 'richText':
      case 'email':
      case 'url':
      case 'slug':
        return this.filter('String', GraphQLString, [...ORDERED, 'contains', 'startsWith', 'endsWith', 'isNull']);
      case 'decimal':
        return this.filter('Decimal', GraphQLString, [...ORDERED, 'isNull']);
      case 'integer':
        return this.filter('Int', GraphQLInt, [...ORDERED, 'isNull']);
      case 'datetime':
        return this.filter('DateTimeField', DateTimeScalar, [...ORDERED, 'isNull']);
      case 'geoPoint':
        return this.placeFilter();
      case 'json':
      case 'blocks':
        return this.filter('JSON', JsonScalar, ['isNull']);
      case 'file':
        return this.filter('Reference', GraphQLID, ['equals', 'not', 'in', 'notIn', 'isNull']);
      case 'number':
        return this.filter('Float', GraphQLFloat, [...ORDERED, 'isNull']);
      case 'boolean':
        return this.filter('Boolean', GraphQLBoolean, ['equals', 'not', 'isNull']);
      case 'date':
        return this.filter('Date', DateScalar, [...ORDERED, 'isNull']);
      case 'relation':
        return this.filter('Reference', GraphQLID, ['equals', 'not', 'in', 'notIn', 'isNull']);
      case 'enum': {
        const type = this.scalar(model, field);
        return this.filter(type.name, type, ['equals', 'not', 'in', 'notIn', 'isNull']);
      }
    }
  }

  private placeFilter(): GraphQLInputObjectType {
    const number = new GraphQLNonNull(GraphQLFloat);
    const operand = (of: string, { description, values }: PlaceOperator) => {
      const fields = Object.entries(values).map(([name, told]) => [name, { type: number, description: told }] as const);
      const type = this.once(
        of,
        (name) => new GraphQLInputObjectType({ name, description, fields: Object.fromEntries(fields) }),
      );
      return { type, description };
    };
    return this.once(
      'GeoPointFilter',
      (name) =>
        new GraphQLInputObjectType({
          name,
          fields: {
            near: operand('GeoPointNear', PLACE_OPERATORS.near),
            within: operand('GeoPointBox', PLACE_OPERATORS.within),
            isNull: { type: GraphQLBoolean },
          },
        }),
    );
  }

  private filter(of: string, type: GraphQLInputType, operators: readonly string[]): GraphQLInputObjectType {
    return this.once(`${of}Filter`, (name) => {
      const typeOf = (operator: string): GraphQLInputType => {
        if (operator === 'isNull') return GraphQLBoolean;
        return operator === 'in' || operator === 'notIn' ? new GraphQLList(new GraphQLNonNull(type)) : type;
      };
      const fields = Object.fromEntries(
        operators.map((operator) => [operator, { type: typeOf(operator), description: OPERATORS[operator] }]),
      );
      return new GraphQLInputObjectType({ name, fields });
    });
  }

  private direction(): GraphQLEnumType {
    return this.once('Direction', (name) => new GraphQLEnumType({ name, values: { ASC: {}, DESC: {} } }));
  }

  private once<Type>(name: string, make: (name: string) => Type): Type {
    if (!this.made.has(name)) this.made.set(name, make(name));
    return this.made.get(name) as Type;
  }
}

/**
 * The words of a field. Records keep a word that the schema has no longer, and so does their past: it is told as it stands there, because
 * whoever is to correct it has to see it.
 */
class FieldEnumType extends GraphQLEnumType {
  override serialize(value: unknown): string | null | undefined {
    return typeof value === 'string' ? value : super.serialize(value);
  }
}

/** Of what records can be grouped by: the fields, and what follows from them. */
function groupable(model: ModelDefinition): readonly (FieldDefinition | ComputedDefinition)[] {
  return [...model.fields, ...model.computed].filter(isGroupable);
}

/** The name under which a field is written; of what is not written, its name. */
function valueName(field: FieldDefinition | ComputedDefinition): string {
  return 'expression' in field ? field.name : inputName(field);
}

type PlaceOperator = (typeof PLACE_OPERATORS)[keyof typeof PLACE_OPERATORS];

/** What is measured of a field, by the measure's name. */
const MEASURES: Readonly<Record<(typeof AGGREGATES)[number], string>> = {
  sum: 'The sum of',
  avg: 'The mean of',
  min: 'The smallest',
  max: 'The greatest',
};

/** The filters of relations to one record and to many. */
const ONE = {
  name: 'IsFilter',
  operators: {
    is: 'There is such a record and it fits; null: there is none.',
    isNot: 'There is none, or it does not fit; null: there is one.',
  },
} as const;
const MANY = {
  name: 'SomeFilter',
  operators: {
    some: 'At least one fits.',
    every: 'All fit, also where there are none.',
    none: 'None fits, also where there are none.',
  },
} as const;

const ORDERED = ['equals', 'not', 'in', 'notIn', 'gt', 'gte', 'lt', 'lte'];

const OPERATORS: Readonly<Record<string, string>> = {
  contains: 'Upper and lower case are the same.',
  startsWith: 'Upper and lower case are the same.',
  endsWith: 'Upper and lower case are the same.',
  not: 'Records without a value count as different.',
  notIn: 'Records without a value count as different.',
};

function capital(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}
