export { CONTENT_LIMIT, contentFault, fileKind, FRAME_LIMIT_BYTES } from './content.js';
export { CONFLICT_COPY, conflictOf, conflictPath } from './conflict-names.js';
export { digestOf, digestTerm, EMPTY_DIGEST } from './digest.js';
export type { Digest } from './digest.js';
export {
  HANDSHAKE_ERRORS,
  isRetryable,
  isSyncErrorCode,
  protocol1Code,
  SYNC_ERROR_STATUS,
  SYNC_PROTOCOL_2_ERRORS,
  SYNC_PROTOCOL_ERRORS,
  syncError,
} from './errors.js';
export { CLIENT_MESSAGES, SERVER_MESSAGES } from './events.js';
export type { ClientEvent, ServerEvent } from './events.js';
export type { Sync2ErrorCode, SyncErrorCode } from './errors.js';
export { contentHash, contentHashOf, EMPTY_HASH, isContentHash } from './hashes.js';
export type { ContentHash } from './hashes.js';
export { isWholeStoreKey, MASTER_KEY_PREFIX, parseStoreKey, PERMISSIONS, storeKeyPrefix } from './keys.js';
export type { Permission } from './keys.js';
export {
  ACK_WINDOW,
  DIGEST_FOLDERS,
  FILE_LIMIT_BYTES,
  FOLDER_LIMIT,
  HINT_LIMIT_BYTES,
  INLINE_LIMIT_BYTES,
  MISSING_LIMIT,
  PAGE_DEFAULT,
  PAGE_LIMIT,
  PAGE_LIMIT_BYTES,
  PART_LIMIT_BYTES,
  POLL_LIMIT_SECONDS,
  PRESENCE_LIMIT,
  PUSH_LIMIT,
  PUSH_LIMIT_BYTES,
} from './limits.js';
export { ChangesQuery, Cursor, DigestQuery, PageQuery, pageSize, Pull, RestoreBody, SnapshotQuery } from './log.js';
export type {
  Change,
  Changes,
  Conflict,
  Conflicts,
  DigestAnswer,
  DigestCount,
  FileState,
  SnapshotLine,
  Trash,
  TrashedFile,
  Version,
  Versions,
} from './log.js';
export { DeleteFolderOp, DeleteOp, OPS, parseOp, PutOp, RenameFolderOp, RenameOp } from './operations.js';
export type { OpDone, OpKind, OpResult, PushOp } from './operations.js';
export { isBelow, PATH_ERRORS, PATH_LIMIT, pathFault, pathKey, SEGMENT_LIMIT_BYTES, syncPath } from './paths.js';
export type { PathFault, PathKey, PathReason, SyncPath } from './paths.js';
export { openApi } from './openapi.js';
export { asyncApi } from './asyncapi.js';
export { parsePayload } from './payload.js';
export type { CurrentState, Sync2ErrorBody, SyncErrorBody } from './refusals.js';
export { ROUTES } from './routes.js';
export type { Lines, Route } from './routes.js';
export type { JsonSchema } from './shape.js';
export {
  AuditQuery,
  CreateKeyBody,
  CreateStoreBody,
  FileBody,
  FileQuery,
  isSet,
  KEY_HEADER,
  KeyChangeQuery,
  LIST_DEFAULT,
  LIST_LIMIT,
  ListQuery,
  RenameBody,
  REST_BASE,
  RotateKeyBody,
  TenantQuery,
} from './rest.js';
export type {
  AuditEntry,
  AuditPage,
  DeviceList,
  DeviceView,
  FileList,
  FileMoved,
  FileView,
  FileWithContent,
  KeyView,
  SettingList,
  SettingView,
  SettingWithContent,
  StoreView,
} from './rest.js';
export { CLIENT_EVENTS, CreatedFile, DeletedFile, ModifiedFile, RenamedFile, SERVER_EVENTS } from './socket-events.js';
export type { Ack, Broadcast, FileCreated, FileDeleted, FileModified, FileRenamed } from './socket-events.js';
export {
  Applied,
  CLIENT_EVENTS_2,
  Device,
  DEVICE_HEADER,
  Download,
  Handshake,
  Missing,
  parseHandshake,
  parsePresence,
  PROTOCOL_2,
  Push,
  REST_BASE_2,
  SERVER_EVENTS_2,
  SetPresence,
  Upload,
} from './session.js';
export type { Ack2, Head, KeyScope, Limits, Presence, Ready, Resync, Revoked } from './session.js';
