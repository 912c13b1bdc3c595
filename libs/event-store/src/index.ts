export { append, APPEND_ERRORS, chainHash, isStreamTaken, MAX_EVENT_BYTES, refusalOf, sendAppend } from './append.js';
export type { AppendConflict, AppendResult, ExpectedVersion, StreamAppend } from './append.js';
export { MAX_AUDIT_LOOK, readAudit } from './audit.js';
export type { AuditEntry, AuditFilter, AuditPage } from './audit.js';
export { readChanges } from './audit-changes.js';
export type { EventDecoder, FieldChange } from './audit-changes.js';
export { EventCodec, fieldNames } from './codec.js';
export {
  claimErasure,
  completeErasure,
  eraseFromBuilds,
  eraseFromLog,
  listErasures,
  postponeErasure,
  requestErasure,
} from './erasures.js';
export type { Erasure, Sought } from './erasures.js';
export { Fence } from './fence.js';
export { GROUP_COMMIT_ERRORS, GroupCommit } from './group-commit.js';
export type { GroupCommitOptions } from './group-commit.js';
export { fingerprintOf, findAnswers, isAnswerTaken, keepAnswers, MAX_IDEMPOTENCY_KEY } from './idempotency.js';
export type { KeptAnswer } from './idempotency.js';
export { allEvents, readEvents, readStream, streamEvents } from './read.js';
export type { AllEventsOptions, EventFilter, EventSelection, StreamWay } from './read.js';
export { progressAt } from './progress.js';
export type { Progress } from './progress.js';
export { eventStoreMigrations } from './schema.js';
export { destroySubjectKey, SubjectKeys, wasErasedSince } from './subject-keys.js';
export type { StoredKey } from './subject-keys.js';
export { isSnapshotDue, keepSnapshots, lastSteps, SNAPSHOT_EVERY, stateAt } from './snapshots.js';
export type {
  EventOpener,
  StateAt,
  StateFold,
  StateSealer,
  StateToKeep,
  StreamState,
  StreamStep,
  StreamSteps,
} from './snapshots.js';
export { STORAGE_ERRORS, storageFault } from './storage-faults.js';
export { announceAppended, AppendHints, appendedChannel, subscribe } from './subscription.js';
export type { SubscribeOptions } from './subscription.js';
export { EVENT_LOG_ERRORS, verifyLog } from './verify.js';
export type { LogFault, LogFaultCode, LogTotals, StreamHead, VerifyOptions } from './verify.js';
export { CheckpointWriter, checkpointKey, compareWithCheckpoint, readCheckpoint } from './log-checkpoint.js';
export type { CheckpointScope } from './log-checkpoint.js';
export {
  BUILD_ERRORS,
  BUILD_MOVES,
  BUILD_STATES,
  cancelBuild,
  requestBuild,
  rollbackProjection,
  switchBuild,
} from './projections/builds.js';
export type {
  Build,
  BuildFacts,
  BuildMove,
  BuildOf,
  BuildOrder,
  BuildRequest,
  BuildState,
} from './projections/builds.js';
export { exportLog, LOG_EXPORT_ERRORS } from './log-export.js';
export type { LogExportCounts, LogExportHeader, LogExportOptions } from './log-export.js';
export { importLog } from './log-import.js';
export type { LogImported, LogImportOptions } from './log-import.js';
export { pauseProjection, resumeProjection } from './projections/checkpoints.js';
export type { Shard, ShardState } from './projections/checkpoints.js';
export { askForRetry, openDeadLetters, retryDeadLetter, skipDeadLetter } from './projections/dead-letters.js';
export type { DeadLetter, RetryOptions } from './projections/dead-letters.js';
export { PROJECTION_ERRORS, unknownEvent } from './projections/projection.js';
export type { DecodeEvents, Projection, ProjectionTable, ProjectionTarget } from './projections/projection.js';
export { PROJECTION_LEASE_MS, PROJECTION_POLL_MS, ProjectionRunner } from './projections/runner.js';
export type { ProjectionRunnerOptions } from './projections/runner.js';
export { projectionStatus, visibleProjections } from './projections/status.js';
export type {
  BuildProgress,
  BuildStatus,
  ProjectionStatus,
  ShardFacts,
  ShardStatus,
  VisibleBuild,
} from './projections/status.js';
export { REPLAY_ERRORS, replayLog } from './replay.js';
export type { ReplayOptions, ReplayTotals } from './replay.js';
