export { HistoricalSyncProcessor, ImportResources } from './historical-sync.processor.js';
