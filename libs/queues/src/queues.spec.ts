import 'reflect-metadata';
import { HISTORICAL_SYNC_QUEUE, HistoricalSyncSlice, parsePayload, progressChannel, QUEUES } from './queues.js';

const JOB = '0190a0b0-0000-7000-8000-000000000001';
const TENANT = '00000000-0000-7000-8000-000000000001';

describe('parsePayload', () => {
  it('gives an instance of the declared class, without what it does not declare', () => {
    const payload = parsePayload(HISTORICAL_SYNC_QUEUE, { jobId: JOB, tenantId: TENANT, more: 1 });
    expect(payload).toBeInstanceOf(HistoricalSyncSlice);
    expect(JSON.parse(JSON.stringify(payload))).toEqual({ jobId: JOB, tenantId: TENANT });
  });

  it.each([
    [undefined, /jobId, tenantId/],
    [null, /jobId, tenantId/],
    [{}, /jobId, tenantId/],
    [{ jobId: JOB }, /wrong tenantId/],
    [{ jobId: 'x', tenantId: TENANT }, /wrong jobId/],
    [{ jobId: 7, tenantId: [TENANT] }, /jobId, tenantId/],
    ['text', /historical-sync/],
    [7, /historical-sync/],
    [[{ jobId: JOB, tenantId: TENANT }], /historical-sync/],
    [[], /historical-sync/],
  ])('refuses %j', (data, message) => {
    expect(() => parsePayload(HISTORICAL_SYNC_QUEUE, data)).toThrow(
      expect.objectContaining({ code: 'JOB_PAYLOAD_INVALID', message: expect.stringMatching(message) }),
    );
  });
});

describe('the declared queues', () => {
  it('have names of their own, and policies that can work', () => {
    expect(new Set(QUEUES.map(({ name }) => name)).size).toBe(QUEUES.length);
    for (const { policy } of QUEUES) {
      expect(policy.attempts).toBeGreaterThanOrEqual(1);
      // A stalled job must be found in the time in which its lock would have been renewed.
      expect(policy.stalledCheckMs).toBeLessThanOrEqual(policy.lockMs);
    }
  });

  it('have a channel for each job', () => {
    expect(progressChannel('a')).not.toBe(progressChannel('b'));
  });
});
