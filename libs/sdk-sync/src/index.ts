export { bytesOf, hashOf, TEXT_LIMIT_BYTES, textOf } from './content.js';
export { SyncEngine } from './engine.js';
export type { EngineOptions, SyncEvent, SyncReport } from './engine.js';
export { clientError, SYNC_CLIENT_ERRORS } from './errors.js';
export type { SyncClientErrorCode } from './errors.js';
export { GatewayServer, session } from './gateway.js';
export type { GatewayListener, GatewayOptions } from './gateway.js';
export { mergeTexts } from './merge.js';
export type { ConflictPolicy, Merged } from './merge.js';
export type { Refused } from './plan.js';
export type {
  AgreedFile,
  Change,
  ChangePage,
  Cursor,
  Intent,
  Journal,
  JournalState,
  JournalWrite,
  LocalFiles,
  LocalOutcome,
  PushFault,
  PushOp,
  PushResult,
  RemoteFile,
  Resync,
  Scan,
  ScannedFile,
  ServerLimits,
  SnapshotFile,
  StoreDigest,
  SyncServer,
} from './ports.js';
