export { append } from './append.js';
export type { AppendResult, ExpectedVersion, StreamAppend } from './append.js';
export { Fence } from './fence.js';
export { readEvents } from './read.js';
export type { EventFilter } from './read.js';
export { eventStoreMigrations } from './schema.js';
