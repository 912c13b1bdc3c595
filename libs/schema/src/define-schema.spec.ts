import fc from 'fast-check';
import { isCodedError } from '@atomo-cc/kernel';
import { computeValue } from './condition.js';
import { defineSchema } from './define-schema.js';
import { describeSchema } from './describe.js';
import {
  belongsTo,
  block,
  blocks,
  caller,
  decimal,
  enumeration,
  file,
  hasMany,
  integer,
  json,
  manyToMany,
  number,
  product,
  slug,
  sum,
  template,
  text,
  type BlockFields,
  type ModelDeclaration,
} from './dsl.js';
import { linkTableOf, readSchema } from './model.js';

/** The faults of a declaration, a line each; none when it is right. */
function faultsOf(models: unknown): string[] {
  try {
    defineSchema({ models: models as Record<string, ModelDeclaration> });
    return [];
  } catch (error) {
    if (!isCodedError(error)) throw error;
    return error.message
      .split('\n')
      .slice(1)
      .map((fault) => fault.trim());
  }
}

const Text = block('Text', { fields: { text: text() } });

describe('faults', () => {
  it.each<[string, unknown, RegExp]>([
    ['text min', text().min(-1), /min\(-1\) is no whole number/],
    ['text min above max', text().min(5).max(4), /min\(5\) is above max\(4\)/],
    ['text too long', text().max(1_000_001), /from 1 to 1000000/],
    ['pattern', text().pattern(/(a)\1/), /refers back to a group/],
    ['pattern of text', text().pattern('x' as unknown as RegExp), /takes a regular expression/],
    ['integer bound', integer().min(0.5), /no whole number of 32 bits/],
    ['integer too large', integer().max(2 ** 40), /decimal\(18, 0\) for larger/],
    ['decimal', decimal(4, 5), /no digits that could be kept/],
    ['decimal', decimal(39, 2), /1 to 38 in all/],
    ['default', text().max(3).default('long'), /its default cannot be stored: value has 4 characters/],
    ['default', integer().default(1.5), /no whole number/],
    ['default', enumeration('A').default('B' as 'A'), /none of A/],
    ['setNull', belongsTo('Contact', { onDelete: 'setNull' }).required(), /would empty it, but it is required/],
    ['onDelete', belongsTo('Contact', { onDelete: 'drop' as 'cascade' }), /none of restrict, cascade and setNull/],
    ['slug', slug({ from: 'nothing' }), /made from nothing, which is no text of Contact/],
    [
      'slug scope',
      slug({ scope: ['other'] }),
      /there is no field other in Contact|unique within other, which is no required/,
    ],
    ['file', file({ accept: ['png'] }), /no list of media types/],
    ['file', file({ maxBytes: 0 }), /maxBytes: 0/],
    ['blocks', blocks([]), /no types of block/],
    ['blocks', blocks(['Nobody']), /there is no block Nobody/],
    ['blocks', blocks([Text, 7 as unknown as string]), /7 is no block/],
    ['blocks max', blocks([Text]).max(0), /max\(0\)/],
    ['block name', blocks([block('text', { fields: {} })]), /a block's name starts with a capital/],
    ['block taken', blocks([block('Contact', { fields: {} })]), /the API has a type Contact already/],
    ['block twice', blocks([Text, block('Text', { fields: { other: text() } })]), /another block Text already/],
    ['unique', json().unique(), /json, which cannot be in an index/],
    ['unique', text().unique(), /10000 characters; an index of Postgres holds 800/],
    ['index', text().max(801).index(), /801 characters/],
    ['message', text().max(3, 7 as unknown as string), /message of maxLength is no sentence/],
    ['ui', text().ui({ lable: 'x' } as object), /ui has no lable\. There are label/],
    ['ui', text().ui({ hidden: 'yes' as unknown as boolean }), /ui\.hidden is no boolean/],
    ['describe', text().describe(7 as unknown as string), /takes a sentence/],
    ['hasMany', hasMany('Nobody'), /points at Nobody/],
    ['hasMany', hasMany('Contact'), /has no relation to Contact: add contact: belongsTo\('Contact'\)/],
    ['manyToMany', manyToMany('Contact', { inverseOf: 'x' }), /no relation that owns links to Contact/],
    ['manyToMany', manyToMany('Contact', { through: 'Nobody' }), /goes through Nobody, which is no model/],
  ])('of a field: %s', (_name, field, fault) => {
    const faults = faultsOf({ Contact: { fields: { value: field } } });
    for (const each of faults) expect(each).toMatch(/^models\.Contact\.fields\.value: /);
    expect(faults).toContainEqual(expect.stringMatching(fault));
  });

  it.each<[string, Record<string, unknown>, RegExp]>([
    ['a relation', { of: belongsTo('A') }, /blocks\.P\.fields\.of: a block has no relation/],
    ['a link', { of: hasMany('A') }, /a block has no relations/],
    ['a slug', { of: slug() }, /a block has no slug/],
    ['a key', { of: text().max(9).unique() }, /has no index/],
    ['a person', { of: text().personal() }, /personal\(\) of the blocks field as a whole/],
    ['a type', { type: text() }, /type is what tells blocks apart/],
    ['a wrong default', { of: integer().default(0.5) }, /blocks\.P\.fields\.of: its default cannot be stored/],
  ])('of a block: it cannot hold %s, and is told so once', (_name, fields, fault) => {
    const P = block('P', { fields: fields as BlockFields });
    const models = { A: { fields: { one: blocks([P]), two: blocks([P]) } }, B: { fields: { one: blocks([P]) } } };
    expect(faultsOf(models)).toEqual([expect.stringMatching(fault)]);
  });

  const check = (where: unknown) => ({ checks: [{ where, message: 'x' }] });

  it.each<[string, object, RegExp]>([
    ['an unknown word', { acess: {} }, /models\.A: acess means nothing here\. There are description,/],
    ['a description', { description: 7 }, /A\.description: is no string/],
    ['softDelete', { softDelete: 'no' }, /A\.softDelete: is no boolean/],
    ['unique', { unique: [[]] }, /A\.unique\.0: names no fields/],
    ['unique', { unique: [['nam']] }, /there is no field nam in A/],
    ['unique', { unique: [['name', 'name']] }, /names a field twice/],
    ['unique', { unique: 7 }, /A\.unique: is no list/],
    ['unique where', { unique: [{ fields: ['name'], where: {} }] }, /unique\.0\.where: says nothing about any field/],
    ['index', { index: [['name', 'data']] }, /data is json/],
    ['checks', { checks: [{ where: { size: { gte: 0 } } }] }, /A\.checks\.0: has no message/],
    ['an operator', check({ size: { above: 0 } }), /no operator above\. There are equals/],
    ['an order of texts', check({ name: { gt: 'a' } }), /has no order that is the same everywhere/],
    ['a literal', check({ size: { gt: 'a' } }), /"a" cannot be compared with: size is no number/],
    ['a shape', check({ data: { equals: 1 } }), /data is json, which cannot be compared/],
    ['two types', check({ size: { gt: { field: 'price' } } }), /size is number and price is decimal/],
    ['null', check({ size: { gt: null } }), /gt: null compares with nothing/],
    ['the caller', check({ name: { equals: { caller: 'id' } } }), /only the rules of access know who asks/],
    ['or', check({ or: {} }), /or is no list of conditions/],
    ['access', { access: { read: true } }, /A\.access\.read: does not say who/],
    ['access', { access: { reed: {} } }, /reed means nothing here/],
    ['a role', { access: { read: { Viewr: true } } }, /Viewr means nothing here\. There are Admin,/],
    ['a grant', { access: { read: { Viewer: 'name' } } }, /read\.Viewer: is neither true, false, a list of fields/],
    ['a field to read', { access: { read: { everyone: ['nam'] } } }, /read\.everyone: there is no field nam to read/],
    ['a field to write', { access: { update: { Viewer: ['id'] } } }, /there is no field id to update/],
    ['fields to delete', { access: { delete: { Viewer: ['name'] } } }, /deleted as a whole/],
    ['too few to create', { access: { create: { Viewer: ['size'] } } }, /may not write name, without which no A can/],
    ['on', { on: { changed: [] } }, /A\.on: changed means nothing here/],
    ['an action', { on: { created: ['no way'] } }, /on\.created\.0: names no action/],
    [
      'a new one',
      { on: { created: [{ action: 'x', changedAny: ['name'] }] } },
      /nothing changes when a record is created/,
    ],
    ['changedAny', { on: { updated: [{ action: 'x', changedAny: ['nam'] }] } }, /there is no field nam/],
    [
      'fieldEquals',
      { on: { updated: [{ action: 'x', fieldEquals: { size: 'a' } }] } },
      /fieldEquals: size is no number/,
    ],
    ['computed', { computed: { name: template('x') } }, /computed\.name: is a field already/],
    ['computed', { computed: { x: template('{nam}') } }, /made from nam, which is no field of A/],
    [
      'computed',
      { computed: { x: sum('size', 'price') } },
      /made from size, which is no field of A of type integer, dec/,
    ],
    ['computed', { computed: { x: sum('price', 1e-7) } }, /no number that could be calculated with exactly/],
    ['computed', { computed: { x: null } }, /is no computed field/],
    ['ui', { ui: { list: ['nam'] } }, /A\.ui: there is no field nam/],
  ])('of a model: %s', (_name, more, fault) => {
    const fields = { name: text().max(50).required(), size: number(), price: decimal(9, 2), data: json() };
    expect(faultsOf({ A: { fields, ...more } })).toEqual([expect.stringMatching(fault)]);
  });

  it('of roles', () => {
    const models = { A: { fields: { x: text() } } };
    expect(defineSchema({ roles: ['Editor'], models }).roles).toEqual(['Admin', 'Editor']);
    expect(() => defineSchema({ roles: ['an editor'], models })).toThrow(/roles: is no list of at most 50 names/);
  });

  it('of a relation through a model that does not join the two', () => {
    const fields = { tags: manyToMany('Tag', { through: 'Link' }) };
    const models = (link: object) => ({ Post: { fields }, Tag: { fields: { x: text() } }, Link: { fields: link } });
    expect(faultsOf(models({ post: belongsTo('Post'), tag: belongsTo('Tag') }))).toEqual([]);
    const wrong = [expect.stringMatching(/Link must have exactly one relation to Post and one to Tag/)];
    expect(faultsOf(models({ post: belongsTo('Post') }))).toEqual(wrong);
    expect(faultsOf(models({ post: belongsTo('Post'), tag: belongsTo('Tag'), other: belongsTo('Tag') }))).toEqual(
      wrong,
    );
  });

  it('of any garbage are told, and nothing else is thrown', () => {
    const words =
      'name where read fields Viewer description plural computed unique index checks softDelete access on ui'.split(
        ' ',
      );
    const { garbage } = fc.letrec((tie) => ({
      garbage: fc.oneof(
        { maxDepth: 5 },
        fc.constantFrom<unknown>(
          null,
          undefined,
          7,
          'name',
          '',
          true,
          1n,
          [],
          text(),
          blocks([Text]),
          template('{name}'),
        ),
        fc.array(tie('garbage'), { maxLength: 3 }),
        fc.dictionary(fc.constantFrom(...words), tie('garbage'), { maxKeys: 4 }),
      ),
    }));
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...words.slice(5)), garbage), garbage, (model, other) => {
        const faults = faultsOf({ A: { fields: { name: text() }, ...model }, B: other });
        for (const fault of faults) expect(fault).toMatch(/^(models\.|blocks\.)\S*: ./);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('the intermediate form', () => {
  const schema = defineSchema({
    models: {
      Post: {
        fields: {
          title: text().max(100).required(),
          language: enumeration('en', 'de').required(),
          slug: slug({ from: 'title', scope: ['language'] }),
          code: text().max(9).unique(),
          rank: integer().index(),
          price: decimal(9, 2).personal(),
          author: belongsTo('Post', { onDelete: 'cascade' }),
          answers: hasMany('Post'),
          tags: manyToMany('Tag', { onDelete: 'restrict' }),
          likes: manyToMany('Tag', { through: 'Like' }),
        },
        computed: {
          total: product('price', 'rank', 1.5),
          label: { ...template('{title}: {code}'), description: 'Both.' },
        },
        unique: [
          {
            fields: ['rank'],
            where: { code: { isNull: true }, or: [{ rank: { gt: 0 } }, { language: { in: ['de'] } }] },
            message: 'Taken.',
          },
        ],
        index: [['language', 'rank']],
        checks: [{ where: { rank: { lt: { field: 'price' } }, not: { code: { equals: null } } }, message: 'No.' }],
        access: {
          read: {
            everyone: { fields: ['title', 'total', 'tags'], where: { code: { equals: caller.id } } },
            Manager: true,
            Sales: false,
          },
          update: { Admin: ['title'] },
        },
        on: {
          created: ['tell'],
          updated: [{ action: 'look', changedAny: ['tags'], fieldEquals: { price: '1' } }],
        },
        softDelete: false,
      },
      Tag: { fields: { name: text(), posts: manyToMany('Post', { inverseOf: 'tags' }) } },
      Like: { fields: { post: belongsTo('Post'), tag: belongsTo('Tag') } },
    },
  });
  const [post, tag] = schema.models;
  const all = { fields: null, where: null };

  it('is data', () => expect(readSchema(JSON.parse(JSON.stringify(schema)))).toEqual(schema));

  it('of another version is not read', () => {
    expect(() => readSchema({ ...schema, version: 2 })).toThrow(/version 2; this code reads version 1/);
    for (const none of [null, 7, [], {}]) expect(() => readSchema(none)).toThrow(/no schema in its intermediate form/);
  });

  it('has what is unique, what is found by, and what must hold', () => {
    expect(post!.uniques).toEqual([
      { fields: ['language', 'slug'], where: null, message: null },
      { fields: ['code'], where: null, message: null },
      {
        fields: ['rank'],
        where: {
          op: 'and',
          of: [
            { op: 'isNull', field: 'code', isNull: true },
            {
              op: 'or',
              of: [
                { op: 'gt', field: 'rank', operand: { value: 0 } },
                { op: 'in', field: 'language', values: ['de'] },
              ],
            },
          ],
        },
        message: 'Taken.',
      },
    ]);
    expect(post!.indexes).toEqual([['rank'], ['language', 'rank']]);
    expect(post!.checks).toEqual([
      {
        field: 'rank',
        message: 'No.',
        condition: {
          op: 'and',
          of: [
            { op: 'lt', field: 'rank', operand: { field: 'price' } },
            { op: 'not', of: { op: 'isNull', field: 'code', isNull: true } },
          ],
        },
      },
    ]);
  });

  it('has relations by their other sides', () => {
    const author = post!.fields.find(({ name }) => name === 'author');
    expect(author).toMatchObject({ target: 'Post', onDelete: 'cascade' });
    expect(post!.relations).toMatchObject([
      { name: 'answers', kind: 'hasMany', target: 'Post', via: 'author', input: null },
      { name: 'tags', kind: 'manyToMany', target: 'Tag', input: 'tagIds', onDelete: 'restrict' },
      { name: 'likes', through: { model: 'Like', from: 'post', to: 'tag' }, input: null, onDelete: null },
    ]);
    expect(tag!.relations).toMatchObject([{ name: 'posts', inverseOf: 'tags', input: null }]);
    expect(linkTableOf(post!, post!.relations[1]!)).toBe('link_post_tags');
  });

  it('has what is computed, as personal as what it is made from', () => {
    expect(post!.computed).toEqual([
      {
        name: 'total',
        type: 'decimal',
        scale: 3,
        pii: 'personal',
        description: null,
        ui: null,
        expression: { op: 'product', parts: [{ field: 'price' }, { field: 'rank' }, { value: '1.5' }] },
      },
      {
        name: 'label',
        type: 'text',
        scale: null,
        pii: null,
        description: 'Both.',
        ui: null,
        expression: { op: 'text', parts: [{ field: 'title' }, { value: ': ' }, { field: 'code' }] },
      },
    ]);
    const [total, label] = post!.computed.map(({ expression }) => expression);
    expect(computeValue(post!, total!, { price: '2.50', rank: 3 })).toBe('11.250');
    expect(computeValue(post!, total!, { price: '2.50', rank: null })).toBeNull();
    expect(computeValue(post!, label!, { title: 'A', code: null })).toBe('A:');
  });

  it('holds a slug as personal as what it is made from', () => {
    const fields = { name: text().personal(), path: slug({ from: 'name' }), other: slug() };
    const [person] = defineSchema({ models: { Person: { fields } } }).models;
    expect(person!.fields.map(({ pii }) => pii)).toEqual(['personal', 'personal', null]);
  });

  it('lists who may do what: who is not named may not, but for Admin', () => {
    const some = {
      fields: ['title', 'total', 'tags'],
      where: { op: 'equals', field: 'code', operand: { caller: 'id' } },
    };
    expect(post!.access).toEqual({
      read: { Admin: all, Manager: all, Support: some, Viewer: some },
      create: { Admin: all },
      update: { Admin: { fields: ['title'], where: null } },
      delete: { Admin: all },
    });
    expect(tag!.access).toEqual({
      read: { Admin: all },
      create: { Admin: all },
      update: { Admin: all },
      delete: { Admin: all },
    });
  });

  it('binds actions to events', () => {
    expect(post!.actions).toEqual([
      { event: 'created', action: 'tell', changedAny: null, fieldEquals: null },
      { event: 'updated', action: 'look', changedAny: ['tags'], fieldEquals: { price: '1.00' } },
    ]);
    expect([post!.softDelete, tag!.softDelete]).toEqual([false, true]);
  });

  describe('as a role may know it', () => {
    it('has what may be read or written, and no table, rule or action of what may not', () => {
      const [seen, ...others] = describeSchema(schema, 'Viewer').models;
      expect(others).toEqual([]);
      const access = { read: 'some', create: 'none', update: 'none', delete: 'none' };
      expect(seen).toMatchObject({ name: 'Post', own: ['id'], access });
      const can = { read: true, create: false, update: false };
      expect(seen!.fields.map((field) => [field.name, field.can])).toEqual([['title', can]]);
      // What it is made from is hidden, and so is the model that the tags would lead to.
      expect(seen!.computed).toMatchObject([{ name: 'total', expression: { op: 'product', parts: [] } }]);
      const { relations, uniques, checks, indexes, actions } = seen!;
      expect([relations, uniques, checks, indexes, actions]).toEqual([[], [], [], [], []]);
      expect(JSON.stringify(seen)).not.toMatch(/model_|link_|caller|tell|look|code|price/);
    });

    it('has everything but tables for Admin', () => {
      const { models, roles } = describeSchema(schema, 'Admin');
      expect(roles).toEqual(schema.roles);
      const [seen] = models;
      expect(models.map(({ name }) => name)).toEqual(['Post', 'Tag', 'Like']);
      expect(seen!.fields.map(({ name }) => name)).toEqual(post!.fields.map(({ name }) => name));
      expect(seen!.fields[0]!.can).toEqual({ read: true, create: true, update: true });
      expect(seen!.fields[1]!.can).toEqual({ read: true, create: true, update: false });
      expect(seen!.relations.map(({ name, can }) => [name, can.create])).toEqual([
        ['answers', false],
        ['tags', true],
        ['likes', false],
      ]);
      expect(seen).toMatchObject({ own: ['id', 'version', 'createdAt', 'updatedAt'], access: { read: 'all' } });
      expect(seen!.uniques).toHaveLength(3);
      expect(seen!.indexes).toEqual(post!.indexes);
      expect(seen!.actions).toEqual(post!.actions);
      expect(JSON.stringify(models)).not.toMatch(/model_|link_/);
    });

    it('is nothing for who has no role', () => {
      expect(describeSchema(schema, 'Nobody')).toEqual({
        version: 1,
        role: 'Nobody',
        roles: [],
        models: [],
        blocks: [],
      });
      expect(describeSchema(schema, 'toString').models).toEqual([]);
    });
  });
});
