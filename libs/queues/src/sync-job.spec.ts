import { readFileSync } from 'node:fs';
import { moveSyncJob, SYNC_JOB_MOVES, SYNC_JOB_STATES, type SyncJobMove } from './sync-job.js';

describe('the states of a historical-sync job', () => {
  it('are drawn in docs/states.md exactly as the table has them', () => {
    const [, drawing] = readFileSync('docs/states.md', 'utf8').split(/^## /m);
    const drawn = [...drawing!.matchAll(/^\s*(\w+) --> (\w+): (\w+)$/gm)].map(
      ([, from, to, move]) => `${from} ${move} ${to}`,
    );
    const declared = Object.entries(SYNC_JOB_MOVES).flatMap(([move, { from, to }]) =>
      from.map((state) => `${state} ${move} ${to}`),
    );
    expect(drawn.sort()).toEqual(declared.sort());
  });

  it.each(SYNC_JOB_STATES)('from %s only the listed moves are legal', (state) => {
    for (const [move, { from, to }] of Object.entries(SYNC_JOB_MOVES)) {
      if (from.includes(state)) expect(moveSyncJob(state, move as SyncJobMove)).toBe(to);
      else {
        expect(() => moveSyncJob(state, move as SyncJobMove)).toThrow(
          expect.objectContaining({ code: 'SYNC_JOB_ILLEGAL_MOVE' }),
        );
      }
    }
  });
});
