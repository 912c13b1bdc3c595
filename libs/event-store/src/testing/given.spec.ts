import { CodedError } from '@atomo-cc/kernel';
import { specification, type Decider } from './given.js';

type Event = { readonly type: 'opened' } | { readonly type: 'paid'; readonly cents: number };
type Command = { readonly pay: number } | 'break';

const account: Decider<{ isOpen: boolean; cents: number }, Command, Event> = {
  initialState: () => ({ isOpen: false, cents: 0 }),
  evolve: (state, event) =>
    event.type === 'opened' ? { ...state, isOpen: true } : { ...state, cents: state.cents + event.cents },
  decide: (command, state) => {
    if (command === 'break') throw new TypeError('a fault of the code');
    if (!state.isOpen) throw new CodedError('NOT_OPEN', 'Open it first.');
    if (state.cents + command.pay < 0) return { refused: new CodedError('TOO_LITTLE', 'Too little is left.') };
    return command.pay === 0 ? [] : [{ type: 'paid', cents: command.pay }];
  },
};
const given = specification(account);
const opened: Event = { type: 'opened' };
const paid = (cents: number): Event => ({ type: 'paid', cents });

test('what holds passes', () => {
  given([opened, paid(3)])
    .when({ pay: 4 })
    .then([paid(4)]);
  given([opened]).when({ pay: 0 }).thenNothing();
  given([]).when({ pay: 1 }).thenRefused('NOT_OPEN');
  expect(given([opened]).when({ pay: -1 }).thenRefused('TOO_LITTLE').message).toBe('Too little is left.');
  expect(given([opened, paid(3)]).state).toEqual({ isOpen: true, cents: 3 });
});

test('other events than expected fail, and are shown beside them', () => {
  expect(() =>
    given([opened])
      .when({ pay: 4 })
      .then([opened, paid(5)]),
  ).toThrow(
    [
      'given 1 event, when { pay: 4 }, then',
      '(- expected, + decided)',
      "- { type: 'opened' }",
      "+ { cents: 4, type: 'paid' }",
      "- { cents: 5, type: 'paid' }",
    ].join('\n'),
  );
});

test.each<[string, () => void, string]>([
  ['an event too many', () => given([opened]).when({ pay: 4 }).thenNothing(), "+ { cents: 4, type: 'paid' }"],
  [
    'none',
    () =>
      given([opened])
        .when({ pay: 0 })
        .then([paid(0)]),
    "- { cents: 0, type: 'paid' }",
  ],
  [
    'a refusal',
    () =>
      given([])
        .when({ pay: 4 })
        .then([paid(4)]),
    'refused: NOT_OPEN Open it first.',
  ],
  ['a refusal for nothing', () => given([]).when({ pay: 4 }).thenNothing(), 'refused: NOT_OPEN'],
  ['no refusal', () => given([opened]).when({ pay: 4 }).thenRefused('NOT_OPEN'), "+ { cents: 4, type: 'paid' }"],
  ['another refusal', () => given([]).when({ pay: 4 }).thenRefused('TOO_LITTLE'), 'but was with NOT_OPEN'],
])('%s where it was not expected fails', (_name, claim, message) => {
  expect(claim).toThrow(message);
});

test('an error that is no refusal is thrown on', () => {
  expect(() => given([opened]).when('break')).toThrow(TypeError);
});
