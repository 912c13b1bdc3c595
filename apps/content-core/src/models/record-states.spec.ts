import {
  boolean,
  date,
  datetime,
  decimal,
  defineSchema,
  enumeration,
  geoPoint,
  integer,
  json,
  model,
  number,
  text,
} from '@atomo-cc/schema';
import { factsOfToday } from './record-states.js';

const schema = defineSchema({
  models: {
    Box: model({
      fields: {
        text: text(),
        word: enumeration('A'),
        whole: integer(),
        number: number(),
        exact: decimal(10, 2),
        is: boolean(),
        day: date(),
        at: datetime(),
        json: json(),
        place: geoPoint(),
      },
    }),
  },
});
const Box = schema.models.find(({ name }) => name === 'Box')!;

test('what is of the types of today stays as it is, and so does what is no field', () => {
  const facts = {
    text: 'a',
    word: 'Gone',
    whole: 1,
    number: 1.5,
    exact: '1.50',
    is: false,
    day: '2026-11-21',
    at: '2026-11-21T07:25:18.123Z',
    json: [1],
    place: { lat: 1, lng: 2 },
    createdAt: '2026-11-21T07:25:18.123Z',
    formerly: 7,
  };
  expect(factsOfToday(Box, facts)).toBe(facts);
  expect(factsOfToday(Box, { text: null })).toEqual({ text: null });
});

test.each([
  ['text', 7, '7'],
  ['text', true, 'true'],
  ['text', { a: 1 }, '{"a":1}'],
  ['word', 7, '7'],
  ['whole', '12', 12],
  ['whole', 12.6, 13],
  ['whole', 3e9, null],
  ['whole', 'x', null],
  ['whole', '', null],
  ['number', '1.5', 1.5],
  ['number', '1e999', null],
  ['exact', 7, '7'],
  ['exact', 'x', null],
  ['is', 'No', false],
  ['is', 1, true],
  ['is', 'maybe', null],
  ['day', '2026-11-21T07:25:18.123Z', '2026-11-21'],
  ['day', 'soon', null],
  ['at', '2026-11-21', '2026-11-21T00:00:00.000Z'],
  ['at', 7, null],
  ['json', 'x', 'x'],
  ['place', 'x', null],
])('%s that was written as %j is %j', (field, written, read) => {
  expect(factsOfToday(Box, { [field]: written })).toEqual({ [field]: read });
});
