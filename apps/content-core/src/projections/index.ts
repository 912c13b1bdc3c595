export { projectionsApi } from './projections-api.js';
