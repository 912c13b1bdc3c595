export { memoryApi } from './memory-api.js';
