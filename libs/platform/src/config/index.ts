export {
  CONFIG_ERRORS,
  count,
  loadConfig,
  memoryVariables,
  postgresUrl,
  redisUrl,
  requireReachableMemory,
  requireSecret,
  servicePort,
  serviceVariables,
} from './config.js';
export { bool, str, url } from 'envalid';
