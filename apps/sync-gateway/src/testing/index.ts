export { fuzz } from './fuzz.js';
export { Client, Device2, hashOf, putOf, TestGateway } from './gateway.js';
export { Balancer, GatewayProcess } from './gateway-process.js';
export type { Answer } from './gateway.js';
