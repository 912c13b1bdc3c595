export { ERASURE_ERRORS, Erasures } from './erasures.js';
export type { ErasureWork } from './erasures.js';
export { SubjectExport } from './subject-export.js';
export { SubjectsController } from './subjects.controller.js';
export { subjectsApi } from './subjects-api.js';
