import type { ContentHash } from '@atomo-cc/sync-protocol';
import { expectedBase, expectedByHeaders, isMet, tagOf } from './preconditions.js';

const [one, two] = ['1', '2'].map((digit) => `sha256:${digit.repeat(64)}`) as [ContentHash, ContentHash];
const [ONE, TWO] = [tagOf(one), tagOf(two)];

/** Whether it holds of `one`, of `two` and where no file is. */
const holds = (expected: Parameters<typeof isMet>[0]) => [one, two, null].map((there) => isMet(expected, there));

it('a base is one content, or that no file is there, or nothing', () => {
  expect(holds(expectedBase(one))).toEqual([true, false, false]);
  expect(holds(expectedBase(null))).toEqual([false, false, true]);
  expect(holds(expectedBase(undefined))).toEqual([true, true, true]);
});

it.each([
  [{}, [true, true, true]],
  [{ 'if-match': '*' }, [true, true, false]],
  [{ 'if-none-match': '*' }, [false, false, true]],
  [{ 'if-match': ONE }, [true, false, false]],
  [{ 'if-match': ` "", ${TWO} ,\t${ONE} ` }, [true, true, false]],
  [{ 'if-match': `W/${ONE}` }, [false, false, false]],
  [{ 'if-match': `W/${ONE}, ${TWO}` }, [false, true, false]],
  [{ 'if-none-match': ONE }, [false, true, true]],
  [{ 'if-none-match': `W/${ONE}, "a,b"` }, [false, true, true]],
  [{ 'if-match': '*', 'if-none-match': ONE }, [false, true, false]],
])('headers %j ask what RFC 9110 says', (headers, expected) => {
  expect(holds(expectedByHeaders(headers))).toEqual(expected);
});

it.each(['', one, `${ONE} ${TWO}`, `${ONE},`, '"a', 'w/"a"', '*, "a"', '"a"b"'])(
  'a condition that cannot be read is refused, never passed over: %j',
  (said) => {
    for (const name of ['if-match', 'if-none-match']) {
      expect(() => expectedByHeaders({ [name]: said })).toThrow(expect.objectContaining({ code: 'VALIDATION_ERROR' }));
    }
  },
);
