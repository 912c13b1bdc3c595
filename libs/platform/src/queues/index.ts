export { JobQueues } from './job-queues.js';
export type { QueueDepth } from './job-queues.js';
export { enqueue, Outbox1700000002000, OutboxRelay } from './outbox.js';
