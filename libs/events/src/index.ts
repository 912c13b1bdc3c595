export {
  ACCESS_EVENT_VERSIONS,
  accessEvent,
  accessStream,
  kindOf,
  MODEL_EVENT_VERSIONS,
  modelEvent,
  modelStream,
} from './events.js';
export type {
  AccessEventKind,
  EventMetadata,
  ModelEventKind,
  NewEvent,
  PersonalFields,
  RecordedEvent,
} from './events.js';
export { ATOMO_EVENTS, EVENT_ERRORS, EventCatalogue } from './upcasting.js';
export type { EventShape, FormerNames, Upcaster } from './upcasting.js';
