export { Client, TestGateway } from './gateway.js';
export type { Answer } from './gateway.js';
