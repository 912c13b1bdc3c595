export { hearOut, isTooDeep, LOGGER, restError, runService, startService } from './service.js';
export type { RunningService, ServiceOptions } from './service.js';
