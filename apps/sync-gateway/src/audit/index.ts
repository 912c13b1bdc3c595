export { audit } from './audit.js';
export { DeviceProgress1700000300007, Devices, listDevices, StoreDevices1700000300005 } from './devices.js';
