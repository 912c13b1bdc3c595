export { audit } from './audit.js';
export { Devices, listDevices, StoreDevices1700000300005 } from './devices.js';
