export { open, seal } from './boxes.js';
export { KEY_BYTES, KeyRing, SEALED_DATA_ERRORS } from './key-ring.js';
export type { WrappedKey } from './key-ring.js';
