import { CodedError } from '@atomo-cc/kernel';

/** What the caller of an illegal move is told. */
export const SYNC_JOB_ERRORS = {
  SYNC_JOB_ILLEGAL_MOVE: 'The job is in a state from which this move is not possible, such as pausing a completed job.',
} as const;

/** The states of a historical-sync job. */
export const SYNC_JOB_STATES = ['pending', 'running', 'waiting', 'paused', 'completed', 'failed', 'cancelled'] as const;
/** A state of a historical-sync job. */
export type SyncJobState = (typeof SYNC_JOB_STATES)[number];

/** What can happen to a historical-sync job. */
export type SyncJobMove = 'claim' | 'complete' | 'fail' | 'retry' | 'wait' | 'renew' | 'pause' | 'resume' | 'cancel';

/**
 * The whole state machine: from which states a move is legal, and where it leads. docs/states.md draws it, and a test holds
 * the two equal. `claim` from running is a worker taking over from one that died: the fencing epoch, not the state, keeps
 * the dead one's late writes out.
 */
export const SYNC_JOB_MOVES: Readonly<Record<SyncJobMove, { from: readonly SyncJobState[]; to: SyncJobState }>> = {
  claim: { from: ['pending', 'running'], to: 'running' },
  complete: { from: ['running'], to: 'completed' },
  fail: { from: ['running'], to: 'failed' },
  retry: { from: ['running'], to: 'pending' },
  wait: { from: ['running'], to: 'waiting' },
  renew: { from: ['waiting'], to: 'pending' },
  pause: { from: ['pending', 'running', 'waiting'], to: 'paused' },
  resume: { from: ['paused', 'failed', 'waiting'], to: 'pending' },
  cancel: { from: ['pending', 'running', 'waiting', 'paused'], to: 'cancelled' },
};

/**
 * The state that `move` leads to.
 * @throws CodedError SYNC_JOB_ILLEGAL_MOVE when it is not possible from `state`
 */
export function moveSyncJob(state: SyncJobState, move: SyncJobMove): SyncJobState {
  const { from, to } = SYNC_JOB_MOVES[move];
  if (!from.includes(state)) {
    throw new CodedError(
      'SYNC_JOB_ILLEGAL_MOVE',
      `a ${state} job cannot ${move}; only a ${from.join(' or ')} one can`,
      {
        state,
        move,
      },
    );
  }
  return to;
}
