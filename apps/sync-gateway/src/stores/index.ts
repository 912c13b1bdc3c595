export { noStore, Stores1700000300001 } from './stores.js';
export { StoresModule } from './stores.module.js';
