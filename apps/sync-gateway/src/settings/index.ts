export { StoreSettings1700000300006 } from './settings.js';
export { SettingsModule } from './settings.module.js';
