export { specification } from './given.js';
export type { Decider, Decision, Given, Outcome } from './given.js';
export type { EventStore, LogPage } from './event-store.js';
export { eventStoreConformance } from './event-store.conformance.js';
export type { ConformanceOptions, OpenAppend, TestRunner } from './event-store.conformance.js';
export { memoryEventStore } from './memory-event-store.js';
export { tortureFence } from './fence-torture.js';
export type { FenceTorture, FenceTortureCounts } from './fence-torture.js';
