import type { Job } from 'bullmq';
import { createLogger } from '@atomo-cc/platform/logging';
import { Metrics } from '@atomo-cc/platform/telemetry';
import { HistoricalSyncProcessor, ImportResources } from './historical-sync.processor.js';
import { describeFailure } from './import-slice.js';

const PAYLOAD = { jobId: '018f0000-0000-7000-8000-000000000001', tenantId: '00000000-0000-7000-8000-000000000001' };

/** A processor whose database answers every transaction with the next of `answers`. */
function aProcessor(...answers: (() => unknown)[]) {
  let asked = 0;
  const database = { transaction: async () => answers[asked++]!() };
  const kicks: string[] = [];
  const relay = { kick: () => void kicks.push('relay') };
  const redis = { publish: async (channel: string) => void kicks.push(channel) };
  const resources = new ImportResources({ database, blobs: {}, index: {} } as never, relay as never, redis as never);
  const processor = new HistoricalSyncProcessor(resources, createLogger('test', 'silent'), new Metrics('test'));
  return { processor, kicks, asked: () => asked };
}

const run = (processor: HistoricalSyncProcessor, data: unknown) => processor.process({ data } as Job);

test.each([[null], [{}], [{ jobId: 'x', tenantId: 'y' }], [{ jobId: PAYLOAD.jobId }]])(
  'a job of %j is refused before anything is asked',
  async (data) => {
    const { processor, asked } = aProcessor();
    await expect(run(processor, data)).rejects.toMatchObject({ code: 'JOB_PAYLOAD_INVALID' });
    expect(asked()).toBe(0);
  },
);

test('a job that cannot be claimed (paused, cancelled, done) is none of its work', async () => {
  const { processor, kicks, asked } = aProcessor(() => null);
  await run(processor, PAYLOAD);
  expect([asked(), kicks]).toEqual([1, []]);
});

test('a slice that fails is noted in the row, and those who wait for news are told', async () => {
  let wasActive = 0;
  const claimed = {
    job: { checkpoint: null, importId: 'x' },
    claim: { jobId: PAYLOAD.jobId, tenant: PAYLOAD.tenantId, epoch: 1 },
  };
  const { processor, kicks, asked } = aProcessor(
    () => claimed,
    () => 'pending',
  );
  processor.onActivity = () => void (wasActive = Math.max(wasActive, processor.activeJobs));
  // Blobs that cannot be read at all stand for everything that fails inside a slice.
  await run(processor, PAYLOAD);
  expect(asked()).toBe(2);
  expect([wasActive, processor.activeJobs]).toEqual([1, 0]);
  expect(kicks).toEqual(['relay', expect.stringContaining(PAYLOAD.jobId)]);
});

test('where not even the failure can be noted, the queue is told', async () => {
  const claimed = {
    job: { checkpoint: null, importId: 'x' },
    claim: { jobId: PAYLOAD.jobId, tenant: PAYLOAD.tenantId, epoch: 1 },
  };
  const { processor } = aProcessor(
    () => claimed,
    () => Promise.reject(new Error('no database')),
  );
  await expect(run(processor, PAYLOAD)).rejects.toThrow('no database');
  expect(processor.activeJobs).toBe(0);
});

test.each([
  [
    Object.assign(new Error('broken off'), { name: 'ArchiveError', code: 'ARCHIVE_TRUNCATED' }),
    { code: 'ARCHIVE_TRUNCATED', message: 'broken off', mayPass: false },
  ],
  [
    Object.assign(new Error('no bucket'), { name: 'CodedError', code: 'MEMORY_STORE_FAILED' }),
    { code: 'MEMORY_STORE_FAILED', message: 'no bucket', mayPass: true },
  ],
  [
    Object.assign(new Error('select secret'), { code: '42P01' }),
    { code: 'INTERNAL_ERROR', message: expect.not.stringContaining('secret'), mayPass: true },
  ],
  ['a text', { code: 'INTERNAL_ERROR', message: expect.any(String), mayPass: true }],
])('%s is described for the owner', (error, failure) => expect(describeFailure(error)).toEqual(failure));
