export { eventsApi } from './events-api.js';
