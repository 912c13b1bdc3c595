import {
  ArrayMaxSize,
  ArrayNotEmpty,
  IsArray,
  IsBase64,
  IsIn,
  IsInt,
  IsOptional,
  IsUUID,
  Max,
  MaxLength,
  Min,
} from 'class-validator';
import { syncError } from './errors.js';
import { type ContentHash, HASH } from './hashes.js';
import { FILE_LIMIT_BYTES, INLINE_LIMIT_BYTES, PART_LIMIT_BYTES } from './limits.js';
import type { SyncPath } from './paths.js';
import { IsContentHash, IsContentHashes, IsSyncPath, parsePayload } from './payload.js';
import { Sync2ErrorBody } from './refusals.js';
import {
  about,
  either,
  fixed,
  listOf,
  named,
  nullable,
  object,
  type Of,
  optional,
  text,
  uuid,
  whole,
} from './shape.js';

/** What an operation does. The two of folders act on all live files below `path`, in one operation. */
export const OPS = ['put', 'delete', 'rename', 'delete-folder', 'rename-folder'] as const;
/** What an operation does. */
export type OpKind = (typeof OPS)[number];

/** What every operation has. */
class Op {
  /**
   * A UUID (version 7 is best) that the client makes and keeps before it sends the operation. Whoever sends it again gets
   * the stored answer, marked `replayed`: an operation takes effect once.
   */
  @IsUUID() opId!: string;
  @IsSyncPath() path!: SyncPath;
}

/** An operation on one file, which may say what it expects there. */
class FileOp extends Op {
  /**
   * The precondition: the hash that the live file must have; null: there must be none. Left out: whatever is there, and the
   * answer says what was overwritten. When it does not hold the answer is CONFLICT with `details.current`.
   */
  @IsOptional() @IsContentHash() baseHash?: ContentHash | null;
}

/**
 * Writes a file whole. The bytes come in `inline`, or were uploaded as `parts`, or the store has those of `hash` already.
 * Where the live file has these bytes already the answer is success, with `unchanged`, whatever `baseHash` says.
 */
export class PutOp extends FileOp {
  @IsIn(['put']) op!: 'put';
  /** Of all bytes of the file. */
  @IsContentHash() hash!: ContentHash;
  /** Bytes. */
  @IsInt() @Min(0) @Max(FILE_LIMIT_BYTES) size!: number;
  /** The bytes in base64, if they are few. */
  @IsOptional() @IsBase64() @MaxLength(4 * Math.ceil(INLINE_LIMIT_BYTES / 3)) inline?: string;
  /** The hashes of the uploaded parts in order; each but the last may have any size up to the limit. */
  @IsOptional()
  @IsContentHashes()
  @ArrayNotEmpty()
  @ArrayMaxSize(FILE_LIMIT_BYTES / PART_LIMIT_BYTES)
  @IsArray()
  parts?: ContentHash[];
}

/** Deletes a file; the bytes stay in the trash. A file that is not there is deleted: success, `unchanged`. */
export class DeleteOp extends FileOp {
  @IsIn(['delete']) op!: 'delete';
}

/**
 * Moves a file, with its identity and history. NOT_FOUND without a source; the target must be free (CONFLICT or
 * PATH_COLLISION), except that the case or the Unicode form alone may change.
 */
export class RenameOp extends FileOp {
  @IsIn(['rename']) op!: 'rename';
  @IsSyncPath() newPath!: SyncPath;
}

/** Deletes all live files below `path`, each with a change of its own. An empty folder is no fault: `unchanged`. */
export class DeleteFolderOp extends Op {
  @IsIn(['delete-folder']) op!: 'delete-folder';
}

/** Moves all live files below `path` to below `newPath`; all or none. NOT_FOUND when there is none. */
export class RenameFolderOp extends Op {
  @IsIn(['rename-folder']) op!: 'rename-folder';
  @IsSyncPath() newPath!: SyncPath;
}

/** One operation of a push. */
export type PushOp = PutOp | DeleteOp | RenameOp | DeleteFolderOp | RenameFolderOp;

const SHAPES: Readonly<Record<OpKind, new () => PushOp>> = {
  put: PutOp,
  delete: DeleteOp,
  rename: RenameOp,
  'delete-folder': DeleteFolderOp,
  'rename-folder': RenameFolderOp,
};

/**
 * Reads one operation; paths come out in Unicode form NFC.
 * @throws CodedError VALIDATION_ERROR, PATH_INVALID, PATH_NOT_PORTABLE
 */
export function parseOp(payload: unknown): PushOp {
  const kind: unknown = (payload as { op?: unknown } | null | undefined)?.op;
  const shape = OPS.find((each) => each === kind) && SHAPES[kind as OpKind];
  if (!shape) throw syncError('VALIDATION_ERROR', `Op must be one of ${OPS.join(', ')}.`, { field: 'op' });
  const op = parsePayload(shape, payload);
  if (op.op === 'put' && op.inline != null && op.parts != null) {
    throw syncError('VALIDATION_ERROR', 'Send inline or parts, not both.', { field: 'parts' });
  }
  return op;
}

/** What an operation did. */
export const OpDone = object('OpDone', {
  opId: uuid(),
  success: fixed(true),
  seq: whole('The position of the change; of several (folders), of the last one; of none (`unchanged`), the head.'),
  changes: whole('How many changes it made: 0 with `unchanged`, more than 1 only for folders.'),
  fileId: optional(nullable(uuid('The file, after put, rename and delete; null where there was none to delete.'))),
  hash: optional(about(nullable(HASH), 'What the file has now; null after a deletion.')),
  unchanged: optional(about(fixed(true), 'The file was as the operation wants it.')),
  replayed: optional(about(fixed(true), 'The answer to an earlier sending of the same operation.')),
  overwrote: optional(
    about(
      object('Overwritten', { hash: HASH, seq: whole() }),
      'The bytes that a put without `baseHash` replaced; they are in the history.',
    ),
  ),
});
/** What an operation did. */
export type OpDone = Of<typeof OpDone>;

/** What became of one operation. A refusal is an answer: the operations after it are carried out all the same. */
export const OpResult = named(
  'OpResult',
  either(OpDone, object('OpRefused', { opId: text(), success: fixed(false), error: Sync2ErrorBody })),
);
/** What became of one operation. */
export type OpResult = Of<typeof OpResult>;

/** What became of the operations of a push, in their order. */
export const PushAnswer = object('PushAnswer', { results: listOf(OpResult) });
/** What became of a push. */
export type PushAnswer = Of<typeof PushAnswer>;
