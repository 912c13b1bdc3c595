import { accessMigrations } from '@atomo-cc/access';
import { eventStoreMigrations } from '@atomo-cc/event-store';
import type { Migration } from '@atomo-cc/platform/postgres';
import { DeviceProgress1700000300007, StoreDevices1700000300005 } from './audit/index.js';
import { StoreBlobs1700000300003 } from './contents/index.js';
import { FileContents1700000300004, StoreFiles1700000300002 } from './files/index.js';
import { StoreSettings1700000300006 } from './settings/index.js';
import { Stores1700000300001 } from './stores/index.js';

/** Everything the gateway's tables need, in order. */
export const gatewayMigrations: readonly Migration[] = [
  ...accessMigrations,
  ...eventStoreMigrations,
  Stores1700000300001,
  StoreFiles1700000300002,
  StoreBlobs1700000300003,
  FileContents1700000300004,
  StoreDevices1700000300005,
  StoreSettings1700000300006,
  DeviceProgress1700000300007,
];
