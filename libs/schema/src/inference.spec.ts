// What the compiler infers from a schema; tsc -p tsconfig.spec.json is what fails when it is wrong.
import { defineSchema } from './define-schema.js';
import {
  belongsTo,
  block,
  blocks,
  boolean,
  caller,
  date,
  datetime,
  decimal,
  enumeration,
  geoPoint,
  hasMany,
  idsName,
  integer,
  json,
  manyToMany,
  model,
  number,
  product,
  slug,
  template,
  text,
  type BlockOf,
  type IdsName,
  type InferCreateInput,
  type InferRecord,
  type InferUpdateInput,
} from './dsl.js';
import type { GeoPoint, JsonValue } from './model.js';

/** Compiles only for two types that are the same; the bare T is how the compiler is made to compare them. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const expectSame = <A, B>(..._same: Same<A, B> extends true ? [] : ['the types differ', A, B]) =>
  expect(true).toBe(true);

const Paragraph = block('Paragraph', { fields: { text: text().required(), loud: boolean() } });
const CallLog = block('CallLog', { fields: { at: datetime().required() } });

const Contact = model({
  fields: {
    name: text().required().max(80),
    nick: text(),
    stage: enumeration('Lead', 'Customer').required().default('Lead'),
    mood: enumeration('Good', 'Bad'),
    price: decimal(12, 2).required(),
    count: integer().required(),
    size: number(),
    born: date(),
    seen: datetime().defaultNow().required(),
    path: slug({ from: 'name' }).required(),
    spot: geoPoint(),
    data: json(),
    notes: blocks([Paragraph, CallLog]).required(),
    company: belongsTo('Company').required(),
    boss: belongsTo('Contact'),
    deals: hasMany('Deal', { via: 'contact' }),
    tags: manyToMany('Tag'),
    groups: manyToMany('Group', { inverseOf: 'members' }),
  },
  computed: { label: template('{name} ({nick})'), total: product('price', 'count') },
  unique: [['company', 'name']],
  checks: [{ where: { size: { gte: 0 }, not: { mood: { in: ['Bad'] } } }, message: 'No.' }],
  access: {
    read: { Viewer: ['id', 'name', 'label', 'deals'], Sales: { where: { boss: { equals: caller.id } } } },
    update: { Manager: true },
  },
  on: { updated: [{ action: 'tell', changedAny: ['stage'], fieldEquals: { stage: 'Customer' } }] },
});

describe('inferred types', () => {
  type Note =
    | { readonly type: 'Paragraph'; readonly text: string; readonly loud?: boolean | null }
    | {
        readonly type: 'CallLog';
        readonly at: string;
      };

  it('of a block', () => {
    const good: BlockOf<typeof Paragraph> = { type: 'Paragraph', text: 'x' };
    // @ts-expect-error its text is missing
    const missing: BlockOf<typeof Paragraph> = { type: 'Paragraph' };
    // @ts-expect-error it is another block
    const other: BlockOf<typeof Paragraph> = { type: 'CallLog', text: 'x' };
    expect([good, missing, other]).toHaveLength(3);
  });

  it('of a record', () => {
    type Read = InferRecord<typeof Contact>;
    expectSame<Read['id'], string>();
    expectSame<Read['createdAt'], string>();
    expectSame<Read['version'], number>();
    expectSame<Read['name'], string>();
    expectSame<Read['nick'], string | null>();
    expectSame<Read['stage'], 'Lead' | 'Customer'>();
    expectSame<Read['mood'], 'Good' | 'Bad' | null>();
    expectSame<Read['price'], string>();
    expectSame<Read['count'], number>();
    expectSame<Read['spot'], GeoPoint | null>();
    expectSame<Read['data'], JsonValue>();
    expectSame<Read['companyId'], string>();
    expectSame<Read['bossId'], string | null>();
    expectSame<Read['label'], string | null>();
    const notes: Read['notes'] = [{ type: 'Paragraph', text: 'x' }] satisfies readonly Note[];
    expect(notes).toHaveLength(1);
    // @ts-expect-error relations without a column are no part of what is stored
    expectSame<Read['deals'], never>();
    // @ts-expect-error a relation is stored as its id
    expectSame<Read['company'], never>();
  });

  it('of what a record is created from', () => {
    const least: InferCreateInput<typeof Contact> = { name: 'Ada', price: '1.00', count: 1, notes: [], companyId: 'x' };
    const more: InferCreateInput<typeof Contact> = { ...least, nick: null, stage: 'Lead', path: 'ada', tagIds: ['y'] };
    // @ts-expect-error price is required
    const missing: InferCreateInput<typeof Contact> = { name: 'Ada', count: 1, notes: [], companyId: 'x' };
    // @ts-expect-error a decimal is a string
    const rounded: InferCreateInput<typeof Contact> = { ...least, price: 1 };
    // @ts-expect-error none of the words
    const unknownWord: InferCreateInput<typeof Contact> = { ...least, stage: 'Gone' };
    // @ts-expect-error computed fields are not written
    const computed: InferCreateInput<typeof Contact> = { ...least, label: 'x' };
    // @ts-expect-error the other side owns the links
    const inverse: InferCreateInput<typeof Contact> = { ...least, groupIds: [] };
    // @ts-expect-error no such block
    const noBlock: InferCreateInput<typeof Contact> = { ...least, notes: [{ type: 'Picture' }] };
    expect([more, missing, rounded, unknownWord, computed, inverse, noBlock]).toHaveLength(7);
  });

  it('of what a record is changed by', () => {
    const none: InferUpdateInput<typeof Contact> = {};
    const some: InferUpdateInput<typeof Contact> = { nick: null, name: 'Ada', tagIds: [] };
    // @ts-expect-error a required field cannot be emptied
    const emptied: InferUpdateInput<typeof Contact> = { name: null };
    expect([none, some, emptied]).toHaveLength(3);
  });

  it('of the name under which links are written, which is the one at run time', () => {
    expectSame<IdsName<'tags'>, 'tagIds'>();
    const names = {
      tags: 'tagIds' satisfies IdsName<'tags'>,
      categories: 'categoryIds' satisfies IdsName<'categories'>,
      boxes: 'boxIds' satisfies IdsName<'boxes'>,
      matches: 'matchIds' satisfies IdsName<'matches'>,
      wishes: 'wishIds' satisfies IdsName<'wishes'>,
      classes: 'classIds' satisfies IdsName<'classes'>,
      boss: 'bossIds' satisfies IdsName<'boss'>,
      staff: 'staffIds' satisfies IdsName<'staff'>,
    };
    for (const [name, ids] of Object.entries(names)) expect(idsName(name)).toBe(ids);
  });
});

describe('the author is told by the compiler', () => {
  it('of names that are no fields', () => {
    const fields = { name: text().required(), size: number(), mood: enumeration('Good', 'Bad') };
    model({ fields, unique: [['name']], index: [['size']] });
    // @ts-expect-error no such field
    model({ fields, unique: [['nam']] });
    // @ts-expect-error no such field
    model({ fields, checks: [{ where: { siz: { gte: 0 } }, message: 'x' }] });
    // @ts-expect-error no such field
    model({ fields, access: { read: { Viewer: ['nam'] } } });
    // @ts-expect-error no such operation
    model({ fields, access: { reed: { Viewer: true } } });
    // @ts-expect-error no such field
    model({ fields, on: { updated: [{ action: 'x', changedAny: ['nam'] }] } });
    // @ts-expect-error compared with a value of another type
    model({ fields, checks: [{ where: { size: { gte: '0' } }, message: 'x' }] });
    // @ts-expect-error none of the words
    model({ fields, checks: [{ where: { mood: { equals: 'Sad' } }, message: 'x' }] });
    expect(true).toBe(true);
  });

  it('inside defineSchema too', () => {
    const make = () =>
      defineSchema({
        models: {
          Contact: {
            fields: { name: text().required(), size: number() },
            // @ts-expect-error no such field
            unique: [['nam']],
            // @ts-expect-error compared with a value of another type
            checks: [{ where: { size: { gte: '0' } }, message: 'x' }],
          },
        },
      });
    expect(make).toThrow(/there is no field nam in Contact/);
  });

  it('of values that do not fit their field', () => {
    // @ts-expect-error no number
    number().default('7');
    // @ts-expect-error none of the words
    enumeration('Good', 'Bad').default('Sad');
    // @ts-expect-error a number has no pattern
    expect(() => number().pattern(/x/)).toThrow(TypeError);
  });
});
