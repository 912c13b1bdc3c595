export { loadSchema } from './load-schema.js';
export { createModelTables } from './model-tables.js';
export { modelsApi } from './models-api.js';
