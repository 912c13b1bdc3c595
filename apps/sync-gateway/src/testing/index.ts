export { fuzz } from './fuzz.js';
export { Client, Device2, hashOf, putOf, TestGateway } from './gateway.js';
export type { Answer } from './gateway.js';
