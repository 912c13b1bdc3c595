export { Described } from './described.js';
export { fuzz, fuzzRoutes } from './fuzz.js';
export type { Fuzzed } from './fuzz.js';
export { Client, Device2, hashOf, putOf, TestGateway } from './gateway.js';
export { Balancer, GatewayProcess } from './gateway-process.js';
export type { Answer } from './gateway.js';
export { sampleOf } from './samples.js';
export { Plugin } from './plugin.js';
