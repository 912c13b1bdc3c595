export { CONTENT_LIMIT, contentFault, fileKind, FRAME_LIMIT_BYTES } from './content.js';
export { HANDSHAKE_ERRORS, isSyncErrorCode, SYNC_ERROR_STATUS, SYNC_PROTOCOL_ERRORS, syncError } from './errors.js';
export type { SyncErrorBody, SyncErrorCode } from './errors.js';
export { MASTER_KEY_PREFIX, parseStoreKey, PERMISSIONS, storeKeyPrefix } from './keys.js';
export type { Permission } from './keys.js';
export { PATH_LIMIT, pathFault, pathKey, SEGMENT_LIMIT_BYTES, syncPath } from './paths.js';
export type { PathKey, SyncPath } from './paths.js';
export { parsePayload } from './payload.js';
export {
  CreateKeyBody,
  CreateStoreBody,
  FileBody,
  FileQuery,
  isSet,
  KEY_HEADER,
  LIST_DEFAULT,
  LIST_LIMIT,
  ListQuery,
  RenameBody,
  REST_BASE,
  TenantQuery,
} from './rest.js';
export type { FileList, FileView, FileWithContent, KeyView, StoreView } from './rest.js';
export { CLIENT_EVENTS, CreatedFile, DeletedFile, ModifiedFile, RenamedFile, SERVER_EVENTS } from './socket-events.js';
export type { Ack, Broadcast, FileCreated, FileDeleted, FileModified, FileRenamed } from './socket-events.js';
