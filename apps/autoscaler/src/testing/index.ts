export { aScene, FAKE_WORKER, freePort, killHard } from './scene.js';
export type { Scene } from './scene.js';
