export { BEAT_MS, BEAT_TTL_MS, listWorkers, requestDrain, startWorkerBeat } from './worker-registry.js';
export type { RegisteredWorker, WorkerBeat, WorkerBeatOptions } from './worker-registry.js';
