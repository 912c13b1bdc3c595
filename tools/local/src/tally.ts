/** The part of jest's JSON that is counted. */
export interface JestResult {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  /** Files that could not be run at all, a syntax error for instance; their tests are in no other number. */
  readonly numRuntimeErrorTestSuites: number;
}

/** Counts over several runs of jest. */
export interface Tally {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Nothing run yet. */
export function emptyTally(): Tally {
  return { passed: 0, failed: 0, skipped: 0 };
}

/** Adds a run of jest, or the tally of one. A file that could not be run counts as one failed test. */
export function addUp(tally: Tally, more: JestResult | Tally): Tally {
  const each: Tally =
    'passed' in more
      ? more
      : {
          passed: more.numPassedTests,
          failed: more.numFailedTests + more.numRuntimeErrorTestSuites,
          skipped: more.numPendingTests + more.numTodoTests,
        };
  return {
    passed: tally.passed + each.passed,
    failed: tally.failed + each.failed,
    skipped: tally.skipped + each.skipped,
  };
}

/** The last line of `npm test`, which scripts read. */
export function lastLine({ passed, failed, skipped }: Tally): string {
  return `Tests: ${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}
