export { Health } from './health.js';
export type { HealthCheck, Readiness } from './health.js';
