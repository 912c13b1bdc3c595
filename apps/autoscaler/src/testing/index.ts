export { aScene, FAKE_WORKER, killHard } from './scene.js';
export type { Scene } from './scene.js';
