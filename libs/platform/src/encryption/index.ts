export { open, seal } from './boxes.js';
export { SEALED_DATA_ERRORS } from './errors.js';
export { KEY_BYTES, KeyRing } from './key-ring.js';
export type { WrappedKey } from './key-ring.js';
