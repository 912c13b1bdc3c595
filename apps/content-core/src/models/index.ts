export { RecordCommands } from './commands.js';
export { erasePersonal, HISTORY } from './history-projection.js';
export type { LogReading } from './history.js';
export { loadSchema } from './load-schema.js';
export { applyMigration, createModelTables, planMigration, sentenceOf } from './model-tables.js';
export { modelsApi } from './models-api.js';
export { personalFields, recordFold, recordToKeep } from './record-states.js';
export { historyTable } from './schema-diff.js';
export { projectionsOf } from './row-projection.js';
