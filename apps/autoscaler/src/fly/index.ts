export { FlyProvider } from './fly-provider.js';
export type { FlyOptions } from './fly-provider.js';
