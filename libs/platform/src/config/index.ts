export {
  blobsUrl,
  blobVariables,
  CONFIG_ERRORS,
  count,
  loadConfig,
  memoryVariables,
  originList,
  parseBlobsUrl,
  postgresUrl,
  redisUrl,
  requireReachableMemory,
  requireSecret,
  servicePort,
  serviceVariables,
} from './config.js';
export type { BlobsLocation } from './config.js';
export { callerAddress, trustedProxies } from './proxies.js';
export type { IsTrusted } from './proxies.js';
export { bool, str, url } from 'envalid';
