export { createLogger, loggedUrl, nestLogger } from './logging.js';
export type { Logger } from './logging.js';
