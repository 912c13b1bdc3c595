export { auditApi } from './audit-api.js';
export { eventsApi } from './events-api.js';
