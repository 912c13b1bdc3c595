import { belongsTo, boolean, date, defineSchema, email, enumeration, number, text } from './dsl.js';
import { isCalendarDate, validateInput } from './validation.js';

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
