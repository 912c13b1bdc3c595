import fc from 'fast-check';
import { isSameValue } from './condition.js';
import { defineSchema } from './define-schema.js';
import {
  belongsTo,
  block,
  blocks,
  boolean,
  date,
  datetime,
  decimal,
  email,
  enumeration,
  file,
  geoPoint,
  integer,
  json,
  manyToMany,
  number,
  richText,
  slug,
  template,
  text,
  url,
} from './dsl.js';
import { inputName } from './model.js';
import {
  checkRecord,
  isCalendarDate,
  MAX_BLOCK_DEPTH,
  MAX_BLOCKS,
  MAX_FAULTS,
  MAX_JSON_BYTES,
  MAX_LINKS,
  slugOf,
  validateInput,
} from './validation.js';

const ID = '0190a0b0-0000-7000-8000-000000000001';
const [contact] = defineSchema({
  models: {
    Contact: {
      fields: {
        name: text().max(10).required(),
        nick: text(),
        mail: email(),
        size: number().min(-1).max(9.5),
        isGood: boolean(),
        born: date(),
        stage: enumeration('Lead', 'Customer'),
        boss: belongsTo('Contact'),
        rank: number().required(),
      },
    },
  },
}).models;
const check = (input: Record<string, unknown>, mode: 'create' | 'update' = 'update') =>
  validateInput(contact!, input, mode);

describe('validateInput', () => {
  it.each([
    ['name', 'Ada', 'Ada'],
    ['name', '  Ada ', '  Ada '],
    ['name', '0123456789', '0123456789'],
    ['nick', '', ''],
    ['nick', '👩‍🚀', '👩‍🚀'],
    ['nick', 'x'.repeat(10_000), 'x'.repeat(10_000)],
    ['mail', ' Ada@Example.COM ', 'ada@example.com'],
    ['size', -1, -1],
    ['size', 9.5, 9.5],
    ['isGood', false, false],
    ['born', '2024-02-29', '2024-02-29'],
    ['stage', 'Lead', 'Lead'],
    ['bossId', ID, ID],
    ['nick', null, null],
    ['bossId', null, null],
    ['stage', null, null],
  ])('takes %s: %j', (field, given, stored) => {
    expect(check({ [field]: given })).toEqual({ values: { [field]: stored }, faults: [] });
  });

  it.each([
    ['name', null, /is required/],
    ['name', '', /is required/],
    ['name', ' \n', /is required/],
    ['name', '01234567890', /11 characters; at most 10/],
    ['name', 7, /is no text/],
    ['name', ['a'], /is no text/],
    ['nick', 'a\0b', /NUL/],
    ['nick', 'a\uD800b', /surrogate/],
    ['nick', '\uDC00', /surrogate/],
    ['nick', 'x'.repeat(10_001), /at most 10000/],
    ['mail', 'ada', /no e-mail/],
    ['mail', '', /no e-mail/],
    ['mail', 'ada@example.com\0', /no e-mail|NUL/],
    ['mail', 7, /is no text/],
    ['size', '7', /no number/],
    ['size', Number.NaN, /no number/],
    ['size', Number.POSITIVE_INFINITY, /no number/],
    ['size', -1.01, /below -1/],
    ['size', 10, /above 9\.5/],
    ['isGood', 'true', /neither true nor false/],
    ['isGood', 1, /neither true nor false/],
    ['born', '2023-02-29', /no date/],
    ['born', new Date(0), /no date/],
    ['stage', 'lead', /none of Lead, Customer/],
    ['stage', 'toString', /none of/],
    ['bossId', 'x', /no id of a Contact/],
    ['bossId', ID.toUpperCase(), /no id of a Contact/],
    ['bossId', { id: ID }, /no id of a Contact/],
    ['boss', ID, /has no field boss/],
    ['wat', 1, /Contact has no field wat/],
    ['__proto__', 1, /has no field __proto__/],
    ['constructor', 1, /has no field constructor/],
  ])('refuses %s: %j', (field, given, message) => {
    const input = JSON.parse('{}') as Record<string, unknown>;
    Object.defineProperty(input, field, { value: given, enumerable: true });
    expect(check(input)).toEqual({ values: {}, faults: [{ path: field, message: expect.stringMatching(message) }] });
  });

  it('demands what is required on creation, and nothing on a change', () => {
    expect(check({}, 'update')).toEqual({ values: {}, faults: [] });
    expect(check({ nick: undefined }, 'create').faults.map(({ path }) => path)).toEqual(['name', 'rank']);
    expect(check({ name: 'Ada', rank: 0 }, 'create')).toEqual({ values: { name: 'Ada', rank: 0 }, faults: [] });
  });

  it('tells all faults at once', () => {
    expect(
      check({ wat: 1, size: 'x', mail: 'x' }, 'create')
        .faults.map(({ path }) => path)
        .sort(),
    ).toEqual(['mail', 'name', 'rank', 'size', 'wat']);
  });

  it('takes nothing from the prototype of its input', () => {
    expect(check(Object.create({ name: 'Eve' }) as Record<string, unknown>).values).toEqual({});
  });
});

describe('isCalendarDate', () => {
  it.each(['2000-02-29', '0001-01-01', '9999-12-31', '2026-11-21'])('%s exists', (day) =>
    expect(isCalendarDate(day)).toBe(true),
  );
  it.each([
    '1900-02-29',
    '2026-04-31',
    '2026-13-01',
    '2026-00-10',
    '2026-01-00',
    '0000-01-01',
    '2026-1-1',
    '2026-01-01T00:00:00Z',
    '+02026-01-01',
    '',
    'x',
  ])('%j does not', (day) => expect(isCalendarDate(day)).toBe(false));
});

const Paragraph = block('Paragraph', {
  fields: { text: text().max(20).required(), loud: boolean().required().default(false) },
});
const Section = block('Section', {
  fields: { title: text(), at: datetime(), inner: blocks([Paragraph, 'Section']).max(5).required() },
});
const [article] = defineSchema({
  models: {
    Article: {
      fields: {
        title: text().min(2, 'Say a little more.').max(30, 'Too long.').required('It needs a title.'),
        code: text().pattern(/^[A-Z]{2}\d+$/, 'Two letters, then digits.'),
        home: url(),
        path: slug({ from: 'title' }).required(),
        alias: slug(),
        text: richText(),
        count: integer().min(-5).max(5),
        price: decimal(8, 2).min(-10).max(100_000.5),
        whole: decimal(20, 0),
        seen: datetime(),
        made: datetime().defaultNow().required(),
        day: date().defaultNow(),
        stage: enumeration('Draft', 'Done').required().default('Draft'),
        extra: json(),
        picture: file(),
        spot: geoPoint(),
        notes: blocks([Paragraph, Section]).max(5),
        opens: date(),
        closes: date(),
        tags: manyToMany('Article'),
        tagged: manyToMany('Article', { inverseOf: 'tags' }),
      },
      computed: { label: template('{title}!') },
      checks: [{ where: { closes: { gte: { field: 'opens' } } }, message: 'It closes after it opens.' }],
    },
  },
}).models;
const NOW = Date.UTC(2026, 10, 21, 7, 25, 18, 123);
const put = (input: unknown, mode: 'create' | 'update' = 'update') =>
  validateInput(article!, input as Record<string, unknown>, mode, { clock: { now: () => NOW } });
const nested = (levels: number): unknown =>
  levels === 0 ? { type: 'Paragraph', text: 'x' } : { type: 'Section', inner: [nested(levels - 1)] };

describe('values of all types', () => {
  it.each([
    ['code', 'AB12', 'AB12'],
    ['home', ' https://example.com/a?b=c#d ', 'https://example.com/a?b=c#d'],
    ['home', 'http://müller.example', 'http://müller.example'],
    ['alias', ' Crème-Brulée ', 'crème-brulée'],
    ['alias', 'cafe\u0301', 'caf\u00e9'],
    ['alias', '漢字-2', '漢字-2'],
    ['count', -0, 0],
    ['count', 5, 5],
    ['price', '12.5', '12.50'],
    ['price', '+0012.500', '12.50'],
    ['price', '-0.00', '0.00'],
    ['price', 7, '7.00'],
    ['price', '-10', '-10.00'],
    ['price', '100000.50', '100000.50'],
    ['whole', '12345678901234567890', '12345678901234567890'],
    ['seen', '2026-11-21T09:25+02:00', '2026-11-21T07:25:00.000Z'],
    ['seen', '2024-02-29T23:59:59.9999Z', '2024-02-29T23:59:59.999Z'],
    ['stage', 'Done', 'Done'],
    ['extra', { a: [1, -0, null, { b: 'x' }], c: true }, { a: [1, 0, null, { b: 'x' }], c: true }],
    ['extra', Object.assign(Object.create(null) as object, { a: 1 }), { a: 1 }],
    ['picture', ID, ID],
    ['spot', { lat: -90, lng: 180 }, { lat: -90, lng: 180 }],
    ['notes', [], []],
    ['notes', [{ text: 'x', type: 'Paragraph', loud: true }], [{ type: 'Paragraph', text: 'x', loud: true }]],
    ['notes', [{ type: 'Paragraph', text: 'x' }], [{ type: 'Paragraph', text: 'x', loud: false }]],
    [
      'notes',
      [{ type: 'Section', title: null, at: '2026-11-21T07:25Z', inner: [{ type: 'Section', inner: [] }] }],
      [{ type: 'Section', at: '2026-11-21T07:25:00.000Z', inner: [{ type: 'Section', inner: [] }] }],
    ],
    ['tagIds', [], []],
    ['tagIds', [ID], [ID]],
  ])('takes %s: %j', (field, given, stored) => {
    expect(put({ [field]: given })).toEqual({ values: { [field]: stored }, faults: [] });
  });

  it.each<[string, unknown, string, RegExp]>([
    ['title', 'x', 'title', /^Say a little more\.$/],
    ['title', 'x'.repeat(31), 'title', /^Too long\.$/],
    ['title', null, 'title', /^It needs a title\.$/],
    ['title', ' ', 'title', /^It needs a title\.$/],
    ['code', 'A1', 'code', /^Two letters, then digits\.$/],
    ['home', 'javascript:alert(1)', 'home', /no web address/],
    ['home', 'https://a b', 'home', /no web address/],
    ['home', 'https://', 'home', /no web address/],
    ['home', 'https://exa\tmple.com', 'home', /no web address/],
    ['home', `https://example.com/${'x'.repeat(2048)}`, 'home', /at most 2048/],
    ['alias', 'Two words!', 'alias', /such as two-words\.$/],
    ['alias', '--', 'alias', /letters and digits/],
    ['alias', '', 'alias', /letters and digits/],
    ['count', 1.5, 'count', /no whole number/],
    ['count', 6, 'count', /above 5/],
    ['count', '1', 'count', /no whole number/],
    ['price', '1.234', 'price', /3 digits behind the point; at most 2/],
    ['price', '1234567.00', 'price', /7 digits before the point; at most 6/],
    ['price', '100000.51', 'price', /above 100000\.5/],
    ['price', '-10.01', 'price', /below -10/],
    ['price', '1e3', 'price', /no decimal/],
    ['price', '', 'price', /no decimal/],
    ['price', Number.NaN, 'price', /no decimal/],
    ['price', '1'.repeat(1_000_000), 'price', /no decimal/],
    ['seen', '2026-11-21', 'seen', /no moment/],
    ['seen', '2026-11-21T07:25:18', 'seen', /no moment/],
    ['seen', '2023-02-29T00:00Z', 'seen', /no moment/],
    ['seen', '9999-12-31T23:59:59-01:00', 'seen', /no moment/],
    ['seen', new Date(0), 'seen', /no moment/],
    ['extra', Number.NaN, 'extra', /cannot write/],
    ['extra', { a: undefined }, 'extra', /cannot write/],
    ['extra', { a: 1n }, 'extra', /cannot write/],
    ['extra', [new Date(0)], 'extra', /cannot write/],
    ['extra', { 'a\0': 1 }, 'extra', /a key with a NUL/],
    ['extra', ['\uD800'], 'extra', /surrogate/],
    ['extra', JSON.parse('{"__proto__": 1}'), 'extra', /__proto__/],
    ['extra', 'x'.repeat(MAX_JSON_BYTES - 1), 'extra', /larger than 65536/],
    ['extra', 'ä'.repeat(MAX_JSON_BYTES / 2), 'extra', /larger than 65536/],
    ['extra', Array.from({ length: MAX_JSON_BYTES }, () => 0), 'extra', /larger than/],
    ['extra', JSON.parse('['.repeat(40) + ']'.repeat(40)), 'extra', /deeper than 32/],
    ['picture', 'x.png', 'picture', /no id of an uploaded file/],
    ['spot', { lat: 90.1, lng: 0 }, 'spot', /no place/],
    ['spot', { lat: 0 }, 'spot', /no place/],
    ['spot', { lat: 0, lng: 0, alt: 1 }, 'spot', /no place/],
    ['spot', [0, 0], 'spot', /no place/],
    ['notes', {}, 'notes', /no list of blocks/],
    ['notes', [null], 'notes.0', /no block/],
    ['notes', [{ type: 'Picture' }], 'notes.0.type', /none of Paragraph, Section/],
    ['notes', [{ type: 'toString' }], 'notes.0.type', /none of/],
    ['notes', [{ type: 'Paragraph' }], 'notes.0.text', /^notes\.0\.text is required/],
    ['notes', [{ type: 'Paragraph', text: 'x', size: 1 }], 'notes.0.size', /Paragraph has no field size/],
    ['notes', [{ type: 'Section', inner: [{ type: 'Paragraph', text: 7 }] }], 'notes.0.inner.0.text', /no text/],
    ['notes', [{ type: 'Section', inner: Array.from({ length: 6 }, () => nested(0)) }], 'notes.0.inner', /at most 5/],
    ['notes', Array.from({ length: 6 }, () => nested(0)), 'notes', /6 blocks; at most 5/],
    ['notes', [nested(MAX_BLOCK_DEPTH)], `notes.0${'.inner.0'.repeat(MAX_BLOCK_DEPTH - 1)}.inner`, /deeper than 8/],
    ['label', 'x', 'label', /computed from others/],
    ['tags', [ID], 'tags', /give the ids as tagIds/],
    ['tagged', [ID], 'tagged', /write the other records/],
    ['taggedIds', [ID], 'taggedIds', /has no field taggedIds/],
    ['tagIds', ID, 'tagIds', /no list of ids/],
    ['tagIds', [ID, ID], 'tagIds.1', /stands there twice/],
    ['tagIds', ['x'], 'tagIds.0', /no id of a Article/],
    ['tagIds', Array.from({ length: MAX_LINKS + 1 }, () => ID), 'tagIds', /at most 1000/],
  ])('refuses %s: %j', (field, given, path, message) => {
    expect(put({ [field]: given })).toEqual({
      values: {},
      faults: [{ path, message: expect.stringMatching(message) }],
    });
  });

  it('bounds blocks by their number through all levels and by their size', () => {
    const P = block('P', { fields: { text: text().max(1_000_000) } });
    const Box = block('Box', { fields: { inner: blocks([P]) } });
    const [wide] = defineSchema({ models: { A: { fields: { notes: blocks([P]), boxes: blocks([Box]) } } } }).models;
    const notes = (count: number, length = 1) =>
      validateInput(
        wide!,
        { notes: Array.from({ length: count }, () => ({ type: 'P', text: 'x'.repeat(length) })) },
        'update',
      );
    expect(notes(MAX_BLOCKS).faults).toEqual([]);
    expect(notes(MAX_BLOCKS + 1).faults).toEqual([
      { path: 'notes', message: expect.stringMatching(/more than 1000 blocks/) },
    ]);
    const box = (count: number) => ({ type: 'Box', inner: Array.from({ length: count }, () => ({ type: 'P' })) });
    const boxes = (...given: object[]) => validateInput(wide!, { boxes: given }, 'update').faults;
    expect(boxes(box(MAX_BLOCKS / 2 - 1), box(MAX_BLOCKS / 2 - 1))).toEqual([]);
    expect(boxes(box(MAX_BLOCKS / 2 - 1), box(MAX_BLOCKS / 2))).toEqual([
      { path: 'boxes.1.inner', message: expect.stringMatching(/more than 1000 blocks, nested ones included/) },
    ]);
    expect(notes(1, 1_000_000).faults).toEqual([]);
    expect(notes(2, 524_288).faults).toEqual([
      { path: 'notes', message: expect.stringMatching(/larger than 1048576 bytes/) },
    ]);
  });
});

describe('a new record', () => {
  it('gets its defaults, its slug and its time', () => {
    expect(put({ title: 'Crème brûlée, now!' }, 'create')).toEqual({
      values: {
        title: 'Crème brûlée, now!',
        path: 'creme-brulee-now',
        made: '2026-11-21T07:25:18.123Z',
        day: '2026-11-21',
        stage: 'Draft',
      },
      faults: [],
    });
  });

  it('may say another slug, and null where that is allowed', () => {
    const { values, faults } = put({ title: 'Ada', path: 'Eve', day: null }, 'create');
    expect([values, faults]).toEqual([expect.objectContaining({ path: 'eve', day: null }), []]);
    expect(put({ title: 'Ada', stage: null }, 'create').faults).toEqual([
      { path: 'stage', message: 'stage is required.' },
    ]);
  });

  it('gets no slug of a title without letters, and none of one that is missing', () => {
    expect(put({ title: '!!!' }, 'create').faults).toEqual([
      { path: 'path', message: expect.stringMatching(/cannot be made from title/) },
    ]);
    expect(put({}, 'create').faults).toEqual([{ path: 'title', message: 'It needs a title.' }]);
  });

  it('meets the checks of its model; a change is checked with the record it makes', () => {
    const fault = { path: 'closes', message: 'It closes after it opens.' };
    expect(put({ title: 'Ada', opens: '2026-11-21', closes: '2026-11-20' }, 'create').faults).toEqual([fault]);
    expect(put({ title: 'Ada', opens: '2026-11-21' }, 'create').faults).toEqual([]);
    expect(put({ closes: '2026-11-20' }).faults).toEqual([]);
    expect(checkRecord(article!, { opens: '2026-11-21', closes: '2026-11-20' })).toEqual([fault]);
    expect(checkRecord(article!, { opens: '2026-11-21', closes: '2026-11-21' })).toEqual([]);
  });
});

describe('slugOf', () => {
  it.each([
    ['Hello, World', 'hello-world'],
    ['  --a--b--  ', 'a-b'],
    ["It's Ada’s", 'its-adas'],
    ['Łódź Øre ﬁn', 'łodz-øre-fin'],
    ['हिन्दी भाषा', 'हिन्दी-भाषा'],
    ['Привет, мир', 'привет-мир'],
    ['!!!', ''],
  ])('%j becomes %j', (title, made) => expect(slugOf(title, 200)).toBe(made));

  it('cuts between words, and within the first if need be', () => {
    expect(slugOf('one two three', 8)).toBe('one-two');
    expect(slugOf('incomprehensibilities', 8)).toBe('incompre');
  });
});

describe('any input', () => {
  const faulty = fc.oneof(
    fc.anything({
      withBigInt: true,
      withDate: true,
      withMap: true,
      withNullPrototype: true,
      withSparseArray: true,
      withTypedArray: true,
    }),
    fc.dictionary(
      fc.constantFrom(...article!.fields.map(inputName), 'tagIds', 'wat', '__proto__'),
      fc.anything({ withBigInt: true, withDate: true, withObjectString: true, withNullPrototype: true }),
    ),
    fc.dictionary(
      fc.constant('notes'),
      fc.array(
        fc.dictionary(
          fc.constantFrom('type', 'text', 'inner', 'at'),
          fc.oneof(fc.constantFrom('Paragraph', 'Section', []), fc.anything()),
        ),
      ),
    ),
  );

  it('is taken or refused, and never throws', () => {
    fc.assert(
      fc.property(faulty, fc.constantFrom('create' as const, 'update' as const), (input, mode) => {
        const { values, faults } = put(input, mode);
        expect(faults.length).toBeLessThanOrEqual(MAX_FAULTS);
        for (const { path, message } of faults)
          expect([typeof path, message]).toEqual(['string', expect.stringMatching(/./)]);
        // What was taken is stored as it is, and taken again as the same.
        expect(JSON.parse(JSON.stringify(values))).toEqual(values);
        expect(put(values)).toEqual({ values, faults: [] });
      }),
      { numRuns: 500 },
    );
  });

  const day = fc
    .date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true })
    .map((moment) => moment.toISOString());
  const storable = (max: number) =>
    fc
      .string({ unit: 'grapheme', maxLength: Math.ceil(max / 12) })
      .filter((each) => !each.includes('\0') && each.length <= max);
  const paragraph = fc.record({
    type: fc.constant('Paragraph'),
    text: storable(20).filter((each) => each.trim() !== ''),
    loud: fc.boolean(),
  });
  const { inner } = fc.letrec<{ inner: object[] }>((tie) => ({
    inner: fc.array(
      fc.oneof({ maxDepth: 3 }, paragraph, fc.record({ type: fc.constant('Section'), inner: tie('inner') })),
      { maxLength: 3 },
    ),
  }));
  const right = fc.record(
    {
      title: storable(30).filter((each) => each.trim().length >= 2),
      code: fc.stringMatching(/^[A-Z]{2}[0-9]{1,9}$/),
      alias: storable(200)
        .map((each) => slugOf(each, 200))
        .filter((each) => each !== ''),
      text: storable(1_000),
      count: fc.integer({ min: -5, max: 5 }),
      price: fc
        .integer({ min: -1_000, max: 10_000_050 })
        .map(
          (cents) =>
            `${cents < 0 ? '-' : ''}${Math.trunc(Math.abs(cents) / 100)}.${String(Math.abs(cents) % 100).padStart(2, '0')}`,
        ),
      seen: day,
      opens: day.map((each) => each.slice(0, 10)),
      stage: fc.constantFrom('Draft', 'Done'),
      extra: fc
        .jsonValue({ maxDepth: 4 })
        .filter(
          (each) =>
            each !== null && JSON.stringify(each).length < 10_000 && !/__proto__|\\u/.test(JSON.stringify(each)),
        ),
      picture: fc.uuid(),
      spot: fc.record({
        lat: fc.double({ min: -90, max: 90, noNaN: true }).map((x) => x || 0),
        lng: fc.double({ min: -180, max: 180, noNaN: true }).map((x) => x || 0),
      }),
      notes: inner,
      tagIds: fc.uniqueArray(fc.uuid(), { maxLength: 5 }).map((ids) => ids.toSorted()),
    },
    { requiredKeys: [] },
  );

  it('that is right goes through unchanged, and through JSON', () => {
    fc.assert(
      fc.property(right, (input) => {
        const { values, faults } = put(input);
        expect(faults).toEqual([]);
        expect(values).toEqual(JSON.parse(JSON.stringify(input)));
      }),
      { numRuns: 500 },
    );
  });

  it('that lists ids in any order names the same set', () => {
    const [a, b] = ['00000000-0000-7000-8000-00000000000a', '00000000-0000-7000-8000-00000000000b'];
    expect(put({ tagIds: [b, a] })).toEqual(put({ tagIds: [a, b] }));
  });

  it('with any title has a slug that is taken, or is told that there is none', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), fc.integer({ min: 1, max: 30 }), (title, max) => {
        const made = slugOf(title, max);
        expect(made.length).toBeLessThanOrEqual(max);
        if (made !== '') expect(put({ alias: made })).toEqual({ values: { alias: made }, faults: [] });
      }),
      { numRuns: 1_500 },
    );
  });

  it('is no object: one fault', () => {
    for (const input of [null, undefined, 7, 'x', [], new Map()]) {
      expect(put(input)).toEqual({ values: {}, faults: [{ path: '', message: expect.stringMatching(/no object/) }] });
    }
  });

  it('with more faults than anyone reads has as many as are told', () => {
    const input = Object.fromEntries(Array.from({ length: 1_000 }, (_, at) => [`x${at}`, 1]));
    expect(put(input).faults).toHaveLength(MAX_FAULTS);
    expect(put({ [`x${'y'.repeat(10_000)}`]: 1 }).faults[0]!.message.length).toBeLessThan(200);
  });
});

describe('isSameValue', () => {
  it.each([
    ['decimal', '1.50', '1.5', true],
    ['decimal', '1.50', '1.51', false],
    ['datetime', '2026-11-21T07:25:18.000Z', '2026-11-21T07:25:18+00:00', true],
    ['blocks', [{ type: 'P', text: 'x' }], [{ text: 'x', type: 'P' }], true],
    ['blocks', [{ type: 'P' }], [{ type: 'P', text: 'x' }], false],
    ['json', [1], { 0: 1 }, false],
    ['json', null, {}, false],
    ['json', { a: null }, { b: null }, false],
    ['text', '1.50', '1.5', false],
    ['text', null, null, true],
  ] as const)('%s: %j and %j: %s', (type, a, b, same) => {
    expect([isSameValue({ type }, a, b), isSameValue({ type }, b, a)]).toEqual([same, same]);
  });
});
