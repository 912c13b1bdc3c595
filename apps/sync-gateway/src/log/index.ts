export {
  asSigned,
  conflicts,
  digest,
  kindOf,
  pieceFor,
  pull,
  readChanges,
  readStanding,
  readSummary,
  restorable,
  seenBy,
  snapshot,
  staleness,
  trash,
  versions,
} from './log.js';
export type { Logged, Scope, SnapshotPage, Standing } from './log.js';
