export { ERASURE_ERRORS, Erasures } from './erasures.js';
export type { ErasureWork } from './erasures.js';
export { subjectsApi } from './subjects-api.js';
