export { secretsApi } from './secrets-api.js';
