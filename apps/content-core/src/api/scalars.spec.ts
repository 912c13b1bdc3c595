import { parseValue } from 'graphql';
import { DateScalar, DateTimeScalar } from './scalars.js';

const literal = (text: string) => parseValue(JSON.stringify(text));

test.each(['2026-02-28', '2024-02-29', '0001-01-01', '9999-12-31'])('%s is a Date', (day) => {
  expect(DateScalar.parseValue(day)).toBe(day);
  expect(DateScalar.parseLiteral(literal(day))).toBe(day);
});

test.each(['2026-02-29', '2026-2-1', '2026-13-01', '0000-01-01', '2026-11-21T00:00:00Z', '', 20261121, null])(
  '%p is no Date',
  (value) => expect(() => DateScalar.parseValue(value)).toThrow('A Date is a day that exists'),
);

test.each([
  ['2026-11-21T07:25:18Z', '2026-11-21T07:25:18.000Z'],
  ['2026-11-21T07:25Z', '2026-11-21T07:25:00.000Z'],
  ['2026-11-21T00:25:18.5+02:00', '2026-11-20T22:25:18.500Z'],
])('%s is the moment %s', (given, moment) => {
  expect(DateTimeScalar.parseValue(given)).toBe(moment);
  expect(DateTimeScalar.parseLiteral(literal(given))).toBe(moment);
});

test.each([
  '2026-11-21',
  '2026-11-21T07:25:18',
  '2026-02-30T00:00:00Z',
  '2026-11-21T25:00:00Z',
  '0001-01-01T00:00:00+05:00',
  '9999-12-31T23:00:00-05:00',
  'now',
  0,
])('%p is no DateTime', (value) => expect(() => DateTimeScalar.parseValue(value)).toThrow('A DateTime is a moment'));

test('moments are answered in UTC', () => {
  expect(DateTimeScalar.serialize(new Date(0))).toBe('1970-01-01T00:00:00.000Z');
});
