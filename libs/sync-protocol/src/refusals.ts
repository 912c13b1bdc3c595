import { SYNC_ERROR_STATUS, SYNC_PROTOCOL_ERRORS, type Sync2ErrorCode, type SyncErrorCode } from './errors.js';
import { HASH } from './hashes.js';
import { PATH } from './paths.js';
import {
  fixed,
  flag,
  listOf,
  nullable,
  object,
  type Of,
  oneOf,
  optional,
  partsOf,
  type Shape,
  text,
  uuid,
  whole,
} from './shape.js';

/**
 * `details.current` of a CONFLICT: what is at the path now. Null when nothing ever was, and absent for keys that may not
 * read. A file that was renamed away shows as `deleted`, with a null hash.
 */
export const CurrentState = object('CurrentState', {
  path: PATH,
  fileId: uuid(),
  hash: nullable(HASH),
  size: whole('Bytes.'),
  seq: whole(),
  deleted: flag(),
});
/** What is at the path of a CONFLICT; `hash` of a deleted file is that of its last bytes, which can be restored. */
export type CurrentState = Of<typeof CurrentState>;

/** Facts for the program; the known ones are told, and none is always there. */
const details: Shape<Readonly<Record<string, unknown>>> = {
  schema: {
    type: 'object',
    properties: {
      field: { type: 'string', description: 'The field that breaks a rule.' },
      reason: { type: 'string', description: 'Why a path is refused, or a cursor void.' },
      current: nullable(CurrentState).schema,
      existingPath: { ...PATH.schema, description: 'The file in the way.' },
      missing: listOf(HASH, 'Bytes that the store does not have.').schema,
      retryAfterMs: whole('When to go on, in milliseconds.').schema,
    },
  },
  parts: partsOf([CurrentState, PATH, HASH]),
};

/** What is wrong, as it stands in `error` of a REST body or of an ack of protocol 1. */
export const SyncErrorBody = object('SyncErrorBody', {
  code: oneOf(Object.keys(SYNC_PROTOCOL_ERRORS) as SyncErrorCode[]),
  message: text('One sentence for the user.'),
  details: optional(details),
});
/** What is wrong, in protocol 1. */
export type SyncErrorBody = Of<typeof SyncErrorBody>;

/** What is wrong, as it stands in `error` of a REST body, an ack or the result of one operation of protocol 2. */
export const Sync2ErrorBody = object('Sync2ErrorBody', {
  code: oneOf(Object.keys(SYNC_ERROR_STATUS) as Sync2ErrorCode[]),
  message: text('One sentence for the user.'),
  retryable: flag('Whether the very same request may succeed later.'),
  details: optional(details),
});
/** What is wrong, in protocol 2. */
export type Sync2ErrorBody = Of<typeof Sync2ErrorBody>;

/** The body of every refusal of a REST route of protocol 1. */
export const RefusalBody = object('RefusalBody', { error: SyncErrorBody });
/** The body of every refusal of a REST route of protocol 2. */
export const Refusal2Body = object('Refusal2Body', { error: Sync2ErrorBody });
/** The ack of a refused event of protocol 1. */
export const RefusedAck = object('RefusedAck', { success: fixed(false), error: SyncErrorBody });
/** The ack of a refused event of protocol 2. */
export const Refused2Ack = object('Refused2Ack', { success: fixed(false), error: Sync2ErrorBody });
