import { connectionOf, decodeCursor, encodeCursor, pageSize } from './paging.js';

const refused = expect.objectContaining({ code: 'VALIDATION_ERROR' });
const base64 = (text: string) => Buffer.from(text).toString('base64url');

test.each([
  [undefined, 20],
  [null, 20],
  [1, 1],
  [100, 100],
])('first: %p is a page of %p', (first, size) => expect(pageSize(first)).toBe(size));

test.each([0, -1, 101, 2 ** 31 - 1])('first: %p is refused', (first) => expect(() => pageSize(first)).toThrow(refused));

test('what is wrong is told by the name it was asked for with', () => {
  expect(() => pageSize(0, 100, 'last')).toThrow('last is 0; it must be from 1 to 100.');
});

test('a list with a lower limit has it also where nothing is asked for', () => {
  expect(pageSize(undefined, 5)).toBe(5);
  expect(() => pageSize(6, 5)).toThrow(refused);
});

test.each([[[]], [['a', null, 1.5, false]], [['ключ', '{"', '\u{1f41d}']]])('a cursor gives back its key %j', (key) => {
  expect(decodeCursor('order', encodeCursor('order', key))).toEqual(key);
});

test('a cursor of another order is refused', () => {
  expect(() => decodeCursor('name desc', encodeCursor('name asc', ['a']))).toThrow(refused);
});

test.each([
  ['an empty text', ''],
  ['words', 'page two'],
  ['no JSON', base64('{')],
  ['no list', base64('{"0":"order"}')],
  ['null', base64('null')],
  ['an empty list', base64('[]')],
  ['a nested order', base64('[["order"],1]')],
  ['a number', base64('1')],
])('%s is no cursor', (_name, cursor) => expect(() => decodeCursor('order', cursor)).toThrow(refused));

test('a connection shows the page and not the row beyond it', () => {
  const page = connectionOf(['a', 'b', 'c'], 2, (node) => `c${node}`, true);
  expect(page).toEqual({
    nodes: ['a', 'b'],
    edges: [
      { node: 'a', cursor: 'ca' },
      { node: 'b', cursor: 'cb' },
    ],
    pageInfo: { hasNextPage: true, hasPreviousPage: false, startCursor: 'ca', endCursor: 'cb' },
  });
});

test('an empty last page has no cursors', () => {
  const { pageInfo } = connectionOf([], 2, String, false);
  expect(pageInfo).toEqual({ hasNextPage: false, hasPreviousPage: true, startCursor: null, endCursor: null });
});
