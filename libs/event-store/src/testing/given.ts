import { AssertionError } from 'node:assert';
import { inspect, isDeepStrictEqual } from 'node:util';
import { isCodedError, type CodedError } from '@atomo-cc/kernel';

/** What was decided: events (none: nothing is to happen), or a refusal. A refusal may be thrown instead. */
export type Decision<Event> = readonly Event[] | { readonly refused: CodedError };

/** How commands are decided, as three plain functions. */
export interface Decider<State, Command, Event> {
  readonly decide: (command: Command, state: State) => Decision<Event>;
  readonly evolve: (state: State, event: Event) => State;
  readonly initialState: () => State;
}

/** What is expected of a decision. Each throws an AssertionError that shows what was decided instead. */
export interface Outcome<Event> {
  /** Exactly these events, in this order. */
  then(expected: readonly Event[]): void;
  /** No event, and no refusal. */
  thenNothing(): void;
  /** A CodedError of this code, answered as `refused` or thrown; it is returned, for a look at its details. */
  thenRefused(code: string): CodedError;
}

/** What happened so far. */
export interface Given<State, Command, Event> {
  /** What these events make of the initial state. */
  readonly state: State;
  /** Decides the command on that state. Errors that are no refusal are thrown on. */
  when(command: Command): Outcome<Event>;
}

/**
 * Tests of a decider as sentences: `const given = specification(decider)`, then
 * `given([created]).when(command).then([updated])`. It needs no database and no test framework.
 */
export function specification<State, Command, Event>(
  decider: Decider<State, Command, Event>,
): (events: readonly Event[]) => Given<State, Command, Event> {
  const { decide, evolve, initialState } = decider;
  return (events) => {
    const state = events.reduce((reached, event) => evolve(reached, event), initialState());
    return {
      state,
      when: (command) => {
        const decision = decided(() => decide(command, state));
        const fail = (expected: unknown, wanted: readonly string[]): never => {
          const story = [`given ${plural(events.length)}, when ${shown(command)}, then`, ...wanted];
          const actual = 'refused' in decision ? decision.refused : decision;
          throw new AssertionError({ message: story.join('\n'), expected, actual, operator: 'then' });
        };
        const then = (expected: readonly Event[]): void => {
          if ('refused' in decision) {
            const { code, message } = decision.refused;
            return fail(expected, [`${plural(expected.length)} were expected, but it was refused: ${code} ${message}`]);
          }
          if (!isDeepStrictEqual(decision, expected)) {
            return fail(expected, ['(- expected, + decided)', ...difference(expected, decision)]);
          }
        };
        return {
          // oxlint-disable-next-line unicorn/no-thenable -- the sentence is given, when, then; nobody awaits it, for it has no promise
          then,
          thenNothing: () => then([]),
          thenRefused: (code) => {
            if (!('refused' in decision)) {
              return fail(code, [
                `it should have been refused with ${code}, but decided were`,
                ...difference([], decision),
              ]);
            }
            const { refused } = decision;
            if (refused.code === code) return refused;
            return fail(code, [
              `it should have been refused with ${code}, but was with ${refused.code}: ${refused.message}`,
            ]);
          },
        };
      },
    };
  };
}

function decided<Event>(decide: () => Decision<Event>): Decision<Event> {
  try {
    return decide();
  } catch (error) {
    if (isCodedError(error)) return { refused: error };
    throw error;
  }
}

/** Event by event: one line where both have the same, else what was expected above what was decided. */
function difference(expected: readonly unknown[], actual: readonly unknown[]): string[] {
  const lines: string[] = [];
  for (let n = 0; n < Math.max(expected.length, actual.length); n += 1) {
    if (n < expected.length && n < actual.length && isDeepStrictEqual(expected[n], actual[n])) {
      lines.push(`  ${shown(actual[n])}`);
      continue;
    }
    if (n < expected.length) lines.push(`- ${shown(expected[n])}`);
    if (n < actual.length) lines.push(`+ ${shown(actual[n])}`);
  }
  return lines.length > 0 ? lines : ['  no event'];
}

/** On one line, whatever its length, so that two of them stand below each other letter by letter. */
function shown(value: unknown): string {
  return inspect(value, { depth: 10, breakLength: Infinity, compact: true, sorted: true });
}

function plural(count: number): string {
  return count === 1 ? '1 event' : `${count} events`;
}
