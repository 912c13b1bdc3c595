export { createLogger, loggedUrl, nestLogger, withoutWords } from './logging.js';
export type { Logger } from './logging.js';
