export { MODEL_EVENT_VERSIONS, modelEvent, modelStream } from './events.js';
export type { EventMetadata, ModelEventKind, NewEvent, PersonalFields, RecordedEvent } from './events.js';
