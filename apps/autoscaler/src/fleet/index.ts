export { FLEET_ERRORS } from './errors.js';
export type { FleetErrorCode } from './errors.js';
export { redisLedger } from './ledger.js';
export { LocalProvider } from './local-provider.js';
export { fleetError, watchingProvider } from './provider.js';
export type { Ending, Instance, WorkerProvider } from './provider.js';
