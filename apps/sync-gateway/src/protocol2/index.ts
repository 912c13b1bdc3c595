export { Protocol2Module } from './protocol2.module.js';
export { Sync } from './sync.js';
