import { ApiKeys1700000200001 } from '@atomo-cc/access';
import type { Migration } from '@atomo-cc/platform/postgres';
import { StoreFiles1700000300002 } from './files/index.js';
import { Stores1700000300001 } from './stores/index.js';

/** Everything the gateway's tables need, in order. */
export const gatewayMigrations: readonly Migration[] = [
  ApiKeys1700000200001,
  Stores1700000300001,
  StoreFiles1700000300002,
];
