import { eventStoreConformance } from './event-store.conformance.js';
import { memoryEventStore } from './memory-event-store.js';

eventStoreConformance('memory', memoryEventStore);
