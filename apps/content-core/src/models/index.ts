export { eraseFromHistory, HISTORY } from './history-projection.js';
export type { LogReading } from './history.js';
export { loadSchema } from './load-schema.js';
export { applyMigration, createModelTables, planMigration, sentenceOf } from './model-tables.js';
export { modelsApi } from './models-api.js';
export { recordFold, recordToKeep } from './record-states.js';
export { projectionsOf } from './row-projection.js';
