export { pathFault, pathKey } from '@atomo-cc/sync-protocol';
