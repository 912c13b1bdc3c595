export { Retention } from './retention.js';
export { UpkeepModule } from './upkeep.module.js';
