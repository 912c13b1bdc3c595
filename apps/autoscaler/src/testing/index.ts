export { aCable } from './cable.js';
export type { Cable } from './cable.js';
export { aScene, FAKE_WORKER, freePort, killHard } from './scene.js';
export type { Scene } from './scene.js';
