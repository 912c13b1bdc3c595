export { MODEL_EVENT_VERSIONS, modelEvent, modelStream } from './events.js';
export type { EventMetadata, ModelEventKind, NewEvent, PersonalFields, RecordedEvent } from './events.js';
export { ATOMO_EVENTS, EVENT_ERRORS, EventCatalogue } from './upcasting.js';
export type { EventShape, Upcaster } from './upcasting.js';
