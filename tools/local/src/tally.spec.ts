import { addUp, emptyTally, lastLine } from './tally.js';

const result = (numPassedTests: number, more: Partial<Record<string, number>> = {}) => ({
  numPassedTests,
  numFailedTests: 0,
  numPendingTests: 0,
  numTodoTests: 0,
  numRuntimeErrorTestSuites: 0,
  ...more,
});

describe('the last line of npm test', () => {
  it('adds up the runs', () => {
    const tally = addUp(addUp(emptyTally(), result(3, { numFailedTests: 1 })), result(2));
    expect(lastLine(tally)).toBe('Tests: 5 passed, 1 failed');
  });

  it('never says 0 failed when a file could not be run', () => {
    expect(lastLine(addUp(emptyTally(), result(7, { numRuntimeErrorTestSuites: 1 })))).toBe(
      'Tests: 7 passed, 1 failed',
    );
  });

  it('tells of skipped tests, and only of some', () => {
    expect(lastLine(addUp(emptyTally(), result(1, { numPendingTests: 2, numTodoTests: 1 })))).toBe(
      'Tests: 1 passed, 0 failed, 3 skipped',
    );
  });
});
