import { threadKeys, type ThreadMember } from './threads.js';

const NOTHING = new Map<string, string>();

function member(
  messageId: string,
  inReplyTo: string | null = null,
  firstReference: string | null = null,
): ThreadMember {
  return { messageId, inReplyTo, firstReference };
}

it('gives a tree of replies the key of its root', () => {
  const keys = threadKeys([member('c', 'b', 'x'), member('b', 'a'), member('a')], NOTHING);
  expect(Object.fromEntries(keys)).toEqual({ a: 'a', b: 'a', c: 'a' });
});

it('lets siblings meet whose parent was never kept', () => {
  const keys = threadKeys([member('a', 'gone', 'root'), member('b', 'other', 'root'), member('c', 'gone')], NOTHING);
  expect(Object.fromEntries(keys)).toEqual({ a: 'root', b: 'root', c: 'gone' });
});

it('joins the thread of a parent that is present elsewhere', () => {
  expect(threadKeys([member('a', 'old', 'x')], new Map([['old', 'root']])).get('a')).toBe('root');
});

it('takes no notice of a message that replies to itself', () => {
  expect(threadKeys([member('a', 'a')], NOTHING).get('a')).toBe('a');
});

it.each([[['a', 'b', 'c', 'd']], [['d', 'c', 'b', 'a']], [['c', 'd', 'a', 'b']]])(
  'cuts a loop at its smallest id, seen in the order %j',
  (order) => {
    const parents: Record<string, string> = { a: 'b', b: 'c', c: 'a', d: 'c' };
    const keys = threadKeys(
      order.map((id) => member(id, parents[id], 'reference')),
      NOTHING,
    );
    expect(order.map((id) => keys.get(id))).toEqual(['a', 'a', 'a', 'a']);
  },
);

it('follows a chain of 100,000 replies', () => {
  const chain = Array.from({ length: 100_000 }, (_, index) =>
    member(`m${index}`, index === 0 ? null : `m${index - 1}`),
  );
  expect(threadKeys(chain.toReversed(), NOTHING).get('m99999')).toBe('m0');
});
