import {
  COLUMN_TYPES,
  belongsTo,
  boolean,
  decimal,
  defineSchema,
  enumeration,
  integer,
  linkColumnOf,
  linksOf,
  manyToMany,
  model,
  modelNamed,
  text,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { LINK_COLUMN_TYPE } from './model-columns.js';
import {
  checkName,
  declaredName,
  diffSchema,
  noteOf,
  plainIndexes,
  uniqueName,
  type SchemaStep,
  type TableState,
} from './schema-diff.js';

const SCHEMA = defineSchema({
  models: {
    Contact: model({
      fields: {
        name: text().max(200).required(),
        stage: enumeration('Lead', 'Customer').required().default('Lead'),
        code: text().max(100),
        amount: decimal(12, 2),
        active: boolean(),
        score: integer(),
        nick: text().personal(),
        company: belongsTo('Company'),
        tags: manyToMany('Tag'),
      },
      unique: [['code', 'stage'], { fields: ['name'], where: { active: { equals: true } } }],
      index: [['stage', 'active']],
      checks: [
        { where: { amount: { gte: '0' } }, message: 'Not negative.' },
        { where: { nick: { not: 'x' } }, message: 'No x.' },
      ],
    }),
    Company: model({ fields: { name: text() } }),
    Tag: model({ fields: { name: text() } }),
  },
});
const CONTACT = modelNamed(SCHEMA, 'Contact');
const [BY_CODE, BY_NAME] = CONTACT.uniques.map((unique) => uniqueName(CONTACT, unique)) as [string, string];
const POSITIVE = checkName(CONTACT, CONTACT.checks[0]!);

/** The tables as they are when the schema was brought there. */
function tablesOf(schema: SchemaDefinition): TableState[] {
  const own = {
    tenant_id: 'uuid',
    id: 'uuid',
    version: 'int',
    created_at: 'timestamptz',
    updated_at: 'timestamptz',
    deleted_at: 'timestamptz',
  };
  const link: TableState = { table: 'link_contact_tags', columns: own, indexes: [], checks: [], note: null };
  return [
    link,
    ...schema.models.flatMap((each): TableState[] => {
      const note = noteOf(each);
      const columns = {
        ...own,
        ...Object.fromEntries(Object.entries(note.columns).map(([name, { type }]) => [name, type])),
      };
      const indexes = [
        ...plainIndexes(each).map((key) => ({
          name: key.join('_'),
          columns: ['tenant_id', ...key],
          isUnique: false,
          isPartial: false,
        })),
        ...each.uniques.map((unique) => ({
          name: uniqueName(each, unique),
          columns: ['tenant_id', ...unique.fields],
          isUnique: true,
          isPartial: unique.where !== null,
        })),
      ];
      const links = Object.fromEntries(linksOf(each).map((relation) => [linkColumnOf(relation), LINK_COLUMN_TYPE]));
      const history = {
        table: each.table.replace('model_', 'history_'),
        columns: { ...columns, ...links },
        indexes: [],
        checks: [],
        note: null,
      };
      return [{ table: each.table, columns, indexes, checks: note.checks, note }, history];
    }),
  ];
}

/** The schema with a field of the contact changed, or taken away. */
function field(name: string, settings: Record<string, unknown> | null): SchemaDefinition {
  return {
    ...SCHEMA,
    models: SCHEMA.models.map((each) =>
      each !== CONTACT
        ? each
        : {
            ...each,
            fields: each.fields.flatMap((one) =>
              one.name !== name ? [one] : settings === null ? [] : [{ ...one, ...settings }],
            ),
          },
    ),
  };
}

const brief = ({ what, atBoot, danger }: SchemaStep) => [
  what,
  atBoot,
  danger && (danger.isAsked ? danger.allow : 'unasked'),
];
const briefs = (schema: SchemaDefinition) => diffSchema(schema, tablesOf(SCHEMA)).steps.map(brief);
const change = (edit: (table: TableState) => TableState) =>
  tablesOf(SCHEMA).map((table) => (table.table === 'model_contact' ? edit(table) : table));

test('there is nothing to do where all is as declared', () => {
  expect(diffSchema(SCHEMA, tablesOf(SCHEMA))).toEqual({ steps: [], drift: [] });
});

test('an empty database gets every table, and keys on the tables that are made', () => {
  const { steps } = diffSchema(SCHEMA, []);
  expect(steps.flatMap(({ create }) => create?.table ?? [])).toEqual([
    'link_contact_tags',
    ...['contact', 'company', 'tag'].flatMap((name) => [`model_${name}`, `history_${name}`]),
  ]);
  expect(steps.flatMap(({ statements }) => statements)).toEqual([
    'create unique index "$name" on model_contact (tenant_id, "code", "stage") where "deleted_at" is null',
    'create unique index "$name" on model_contact (tenant_id, "name") where "deleted_at" is null and (("active" = true::boolean))',
    `alter table model_contact add constraint "${POSITIVE}" check (("amount" >= '0.00'::numeric)) not valid`,
  ]);
  expect(steps.every(({ danger, atBoot }) => danger === null && atBoot === 'take')).toBe(true);
});

describe('columns', () => {
  test.each([
    ['integer', 'number', 'unasked'],
    ['integer', 'decimal', 'unasked'],
    ['integer', 'text', 'unasked'],
    ['text', 'integer', 'type:Contact.score'],
    ['decimal', 'integer', 'type:Contact.score'],
    ['number', 'decimal', 'type:Contact.score'],
    ['datetime', 'date', 'type:Contact.score'],
    ['json', 'text', 'type:Contact.score'],
  ] as const)('from %s to %s: %s', (from, to, asked) => {
    const before = field('score', { type: from });
    const { steps } = diffSchema(field('score', { type: to }), tablesOf(before));
    expect(steps.map(brief)).toEqual([['Contact.score', 'stop', asked]]);
    expect(steps[0]!.statements).toHaveLength(2);
  });

  test('types of one column type are the same to the database', () => {
    expect(COLUMN_TYPES.richText).toBe(COLUMN_TYPES.text);
    expect(briefs(field('code', { type: 'richText' }))).toEqual([]);
  });

  test('a column is added to every table of the model, those of builds too, and only where it lacks', () => {
    const tables = tablesOf(field('score', null));
    const build = { ...tables.find(({ table }) => table === 'model_contact')!, table: 'model_contact__b12' };
    const { steps } = diffSchema(SCHEMA, [...tables, build]);
    expect(steps[0]!.statements).toEqual(
      ['model_contact', 'history_contact', 'model_contact__b12'].map(
        (table) => `alter table ${table} add column "score" int`,
      ),
    );
  });

  test('one that is declared no longer waits for its name; a new one of its type may be its new name', () => {
    expect(briefs(field('score', null))).toEqual([['Contact.score', 'leave', 'drop:Contact.score']]);
    expect(briefs(field('score', { name: 'points' }))).toEqual([
      ['Contact.points', 'take', 'add:Contact.points'],
      ['Contact.score', 'leave', 'drop:Contact.score'],
    ]);
  });

  test('a rename is taken once, from the newest former name that is there', () => {
    const renamed = field('score', { name: 'points', formerly: ['missing', 'score'] });
    const { steps } = diffSchema(renamed, tablesOf(SCHEMA));
    expect(steps.map(({ what }) => what)).toEqual(['Contact.score']);
    expect(steps[0]!.statements).toEqual(
      ['model_contact', 'history_contact'].map((table) => `alter table ${table} rename column "score" to "points"`),
    );
    expect(diffSchema(renamed, tablesOf(renamed))).toEqual({ steps: [], drift: [] });
  });

  test('a demand without a default asks about the rows, one with a default does not', () => {
    expect(briefs(field('score', { required: true }))).toEqual([['Contact.score', 'take', 'require:Contact.score']]);
    expect(briefs(field('score', { required: true, default: { value: 1 } }))).toEqual([]);
  });

  test.each([
    ['code', { maxLength: 99 }, `char_length("code") > 99`],
    ['score', { max: 5 }, '"score" > 5'],
    ['score', { min: 5 }, '"score" < 5'],
    ['amount', { scale: 1 }, 'scale(trim_scale("amount")) > 1'],
    ['stage', { values: ['Lead'] }, `"stage" <> all(array['Lead']::text[])`],
  ])('a narrower rule of %s asks: %j', (name, settings, sql) => {
    const { steps } = diffSchema(field(name, settings), tablesOf(SCHEMA));
    expect(steps.map(brief)).toEqual([[`Contact.${name}`, 'take', `narrow:Contact.${name}`]]);
    expect(steps[0]!.danger!.sql).toContain(sql);
  });

  test.each([
    ['code', { maxLength: 101 }],
    ['stage', { values: ['Customer', 'Lead', 'Lost'] }],
    ['amount', { scale: 3 }],
    ['name', { required: false }],
  ])('a wider rule of %s does not: %j', (name, settings) => expect(briefs(field(name, settings))).toEqual([]));
});

describe('keys and checks', () => {
  test('names are fixed, fit into 63 bytes, and follow fields and condition', () => {
    expect(BY_CODE).toMatch(/^uq_contact_code_stage_[0-9a-f]{8}$/);
    expect(POSITIVE).toMatch(/^ck_contact_amount_[0-9a-f]{8}$/);
    const long = { ...CONTACT, name: 'A'.padEnd(46, 'b') };
    expect(`${uniqueName(long, CONTACT.uniques[0]!)}__999`.length).toBeLessThanOrEqual(63);
    const inactive = { ...CONTACT.uniques[1]!, where: null };
    expect(uniqueName(CONTACT, inactive)).not.toBe(BY_NAME);
    expect(declaredName(`${BY_CODE}__2`)).toBe(BY_CODE);
    expect(declaredName(BY_CODE)).toBe(BY_CODE);
  });

  test('what about a person is, the commands alone check', () => {
    expect(noteOf(CONTACT).checks).toEqual([POSITIVE]);
  });

  test('what is missing is made, and what is declared no longer is dropped where it was ours', () => {
    const { steps, drift } = diffSchema(
      SCHEMA,
      change((table) => ({ ...table, indexes: [], checks: [], note: null })),
    );
    expect(steps.map(({ says }) => says.split(' ').slice(0, 2).join(' '))).toEqual([
      'make index',
      'make index',
      'hold it',
      'hold it',
      'hold the',
    ]);
    expect(drift).toEqual([]);
    const without = {
      ...SCHEMA,
      models: SCHEMA.models.map((each) => ({ ...each, uniques: [], checks: [], indexes: [] })),
    };
    const foreign = { name: 'theirs', columns: ['code'], isUnique: true, isPartial: false };
    const tables = change((table) => ({ ...table, indexes: [...table.indexes, foreign] }));
    expect(diffSchema(without, tables).steps.flatMap(({ statements }) => statements)).toEqual([
      'drop index if exists "stage_active"',
      `drop index if exists "${BY_CODE}"`,
      `drop index if exists "${BY_NAME}"`,
      `alter table model_contact drop constraint if exists "${POSITIVE}"`,
    ]);
  });

  test('what somebody else has taken away or changed is told', () => {
    const drifted = change((table) => ({
      ...table,
      columns: { ...table.columns, score: 'text' },
      indexes: table.indexes.filter(({ name }) => name !== BY_NAME && name !== 'stage_active'),
      checks: [],
    }));
    expect(diffSchema(SCHEMA, drifted).drift).toEqual([
      expect.stringContaining(BY_NAME),
      expect.stringContaining('(stage, active)'),
      expect.stringContaining(POSITIVE),
      expect.stringContaining('from int to text'),
    ]);
  });
});

test('tables of models and links that are declared no longer wait for their names', () => {
  const less = { ...SCHEMA, models: SCHEMA.models.filter(({ name }) => name === 'Company') };
  expect(briefs(less)).toEqual(
    ['link_contact_tags', 'model_contact', 'model_tag'].map((table) => [table, 'leave', `drop:${table}`]),
  );
});
