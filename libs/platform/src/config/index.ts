export {
  blobsUrl,
  blobVariables,
  CONFIG_ERRORS,
  count,
  loadConfig,
  memoryVariables,
  parseBlobsUrl,
  postgresUrl,
  redisUrl,
  requireReachableMemory,
  requireSecret,
  servicePort,
  serviceVariables,
} from './config.js';
export type { BlobsLocation } from './config.js';
export { bool, str, url } from 'envalid';
