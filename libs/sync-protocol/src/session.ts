import {
  ArrayMaxSize,
  IsArray,
  IsIn,
  IsInt,
  IsObject,
  IsOptional,
  IsUUID,
  Length,
  Max,
  MaxLength,
  Min,
} from 'class-validator';
import { DIGEST } from './digest.js';
import { syncError } from './errors.js';
import { type ContentHash, HASH } from './hashes.js';
import { PERMISSIONS } from './keys.js';
import { FILE_LIMIT_BYTES, MISSING_LIMIT, PART_LIMIT_BYTES, PRESENCE_LIMIT } from './limits.js';
import { Cursor } from './log.js';
import { PATH } from './paths.js';
import { IsContentHash, IsContentHashes, IsPartBytes, IsStorableText, parsePayload } from './payload.js';
import type { Sync2ErrorBody } from './refusals.js';
import {
  about,
  fixed,
  instant,
  listOf,
  mapOf,
  nullable,
  object,
  type Of,
  oneOf,
  shape,
  text,
  uuid,
  whole,
} from './shape.js';

/** The version of this protocol, `auth.protocol` of the handshake. Without it a socket speaks protocol 1. */
export const PROTOCOL_2 = 2;
/** The base of every route of protocol 2. */
export const REST_BASE_2 = 'api/v2';
/** The header in which REST requests name their device's id. */
export const DEVICE_HEADER = 'x-device-id';

/** What a client sends, in protocol 2; every one is answered by an ack of the form Ack2. */
export const CLIENT_EVENTS_2 = {
  /** Pull → Changes */
  pull: 'pull',
  /** {ops: PushOp[]} → {results: OpResult[]} */
  push: 'push',
  /** DigestQuery → DigestAnswer */
  digest: 'digest',
  /** {hashes} → {missing} */
  missing: 'missing',
  /** {hash, bytes} → {} */
  upload: 'upload',
  /** Download → {bytes, size} */
  download: 'download',
  /** Applied → {} */
  ack: 'ack',
  /** {state} → {} */
  setPresence: 'presence:set',
  /** nothing → {present: Presence[]} */
  listPresence: 'presence:list',
} as const;

/** What the gateway sends, in protocol 2. */
export const SERVER_EVENTS_2 = {
  /** Ready, once for each connection and before anything else */
  ready: 'ready',
  /** Changes */
  changes: 'changes',
  /** Head: a hint that there is more, without it */
  head: 'head',
  /** Resync */
  resync: 'resync',
  /** Presence */
  presence: 'presence',
  /** Revoked; the connection ends after it */
  revoked: 'revoked',
} as const;

/** A client's device, as it names itself; the log keeps the id with each change. */
export class Device {
  /** Made once and kept: the same over restarts. */
  @IsStorableText() @Length(1, 64) id!: string;
  @IsOptional() @IsStorableText() @MaxLength(100) name?: string;
  @IsOptional() @IsStorableText() @MaxLength(50) platform?: string;
  @IsOptional() @IsStorableText() @MaxLength(100) app?: string;
}

/** `auth` of the handshake. */
export class Handshake {
  @IsIn([PROTOCOL_2]) protocol!: typeof PROTOCOL_2;
  @IsObject() device!: Device;
  /** Where the client stands; the changes after it follow `ready`. Left out: only what happens from now on does. */
  @IsOptional() @IsObject() cursor?: Cursor;
}

/**
 * Reads the handshake of protocol 2.
 * @throws CodedError UNSUPPORTED_PROTOCOL, VALIDATION_ERROR
 */
export function parseHandshake(auth: Readonly<Record<string, unknown>>): Handshake {
  if (auth['protocol'] !== PROTOCOL_2) {
    throw syncError('UNSUPPORTED_PROTOCOL', 'This gateway speaks protocols 1 and 2.');
  }
  const { protocol, device, cursor } = parsePayload(Handshake, auth);
  return {
    protocol,
    device: parsePayload(Device, device),
    ...(cursor != null && { cursor: parsePayload(Cursor, cursor) }),
  };
}

/** What this connection may do. */
export const KeyScope = object('KeyScope', {
  id: uuid(),
  permissions: listOf(oneOf(PERMISSIONS)),
  prefixes: listOf(PATH, 'The folders that the key sees and writes; empty: the whole store.'),
  expiresAt: nullable(instant('Null: never.')),
});
/** What this connection may do. */
export type KeyScope = Of<typeof KeyScope>;

/** What this gateway takes at once; clients keep to it instead of to constants of their own. */
export const Limits = object('Limits', {
  inlineBytes: whole('The largest content inside an operation.'),
  partBytes: whole('The largest part, and the largest piece of one download.'),
  fileBytes: whole('The largest file.'),
  pathChars: whole(),
  pushOps: whole('Operations of one push.'),
  pushBytes: whole('Bytes of all contents inside one push.'),
  pageItems: whole('Changes or files of one page.'),
  ackWindow: whole('Positions beyond the last `ack` that are sent unasked; for clients that ack.'),
  opsPerSecond: whole(),
  quotaBytes: nullable(whole('What the store may hold, history not counted; null: no limit.')),
});
/** What this gateway takes at once. */
export type Limits = Of<typeof Limits>;

/** The first event of a connection. What tells of the store's content is null for keys that may not read. */
export const Ready = object('Ready', {
  protocol: fixed(PROTOCOL_2),
  storeId: uuid(),
  epoch: uuid(),
  head: nullable(whole()),
  floor: nullable(whole('Cursors below it need a snapshot.')),
  serverTime: instant(),
  key: KeyScope,
  limits: Limits,
  usedBytes: nullable(whole('Bytes of live files.')),
  digest: about(nullable(DIGEST), 'Of the files that the key sees, at `head`.'),
  count: nullable(whole('How many these are.')),
});
/** The first event of a connection. */
export type Ready = Of<typeof Ready>;

/** `head`: the store has moved to `seq`. Sent without changes to clients that are slow to take or to ack them: pull when ready. */
export const Head = object('Head', { epoch: uuid(), seq: whole() });
/** The store has moved. */
export type Head = Of<typeof Head>;

/** `resync`: the cursor is void; read a snapshot and go on from its head. */
export const Resync = object('Resync', { reason: oneOf(['EPOCH', 'FLOOR', 'SCOPE']), epoch: uuid(), head: whole() });
/** The cursor is void. */
export type Resync = Of<typeof Resync>;

/** `revoked`: why the connection ends. After SCOPE_CHANGED connect again, and expect a `resync`. */
export const Revoked = object('Revoked', { code: oneOf(['KEY_REVOKED', 'KEY_EXPIRED', 'SCOPE_CHANGED']) });
/** Why the connection ends. */
export type Revoked = Of<typeof Revoked>;

/** The ack of every event of protocol 2. */
export type Ack2<Answer> =
  ({ readonly success: true } & Answer) | { readonly success: false; readonly error: Sync2ErrorBody };

/** `push`: up to PUSH_LIMIT operations, carried out in order, each alone. `parseOp` reads each of them. */
export class Push {
  @IsArray() ops!: unknown[];
}

/** `missing`: which of these parts or files the store does not have yet. Upload those, then push. */
export class Missing {
  @IsContentHashes() @ArrayMaxSize(MISSING_LIMIT) @IsArray() hashes!: ContentHash[];
}

/** `upload`: one part; `bytes` is a binary attachment of the event. Sending what is there already is no fault. */
export class Upload {
  @IsContentHash() hash!: ContentHash;
  @IsPartBytes() bytes!: Uint8Array;
}

/** `download`: up to PART_LIMIT_BYTES of a file's bytes, from a byte on. Answers {bytes, size}, `size` of the whole. */
export class Download {
  @IsContentHash() hash!: ContentHash;
  @IsOptional() @IsInt() @Min(0) @Max(FILE_LIMIT_BYTES) from?: number;
  @IsOptional() @IsInt() @Min(1) @Max(PART_LIMIT_BYTES) length?: number;
}

/**
 * `ack`: the client has applied everything up to here. Whoever has sent it once is sent at most `limits.ackWindow` positions
 * beyond it, and hears of more by `head`; so what waits in a client that is busy is bounded. The operator sees how far each device
 * has come. An ack of another epoch says nothing, and one beyond the log means its head.
 */
export class Applied {
  @IsUUID() epoch!: string;
  @IsInt() @Min(0) @Max(Number.MAX_SAFE_INTEGER) through!: number;
}

/** `presence:set`: what the others may see of this device, such as the open file; null takes it back. Kept nowhere. */
export class SetPresence {
  @IsOptional() @IsObject() state?: Readonly<Record<string, unknown>> | null;
}

/** One device of the store, as `presence` tells of it; `state` null: it is gone. */
export const Presence = object('Presence', {
  deviceId: text(),
  name: nullable(text()),
  state: nullable(mapOf(shape<unknown>({}))),
});
/** One device of the store. */
export type Presence = Of<typeof Presence>;

/** The devices that show themselves. */
export const Present = object('Present', { present: listOf(Presence) });
/** The hashes of what the store does not have. */
export const MissingAnswer = object('MissingAnswer', { missing: listOf(HASH) });
/** What `download` answers; `size` is that of the whole. */
export const Downloaded = object('Downloaded', {
  bytes: shape<Uint8Array>({ type: 'string', format: 'binary' }, 'A binary attachment of the ack.'),
  size: whole('Bytes.'),
});
/** The answer to what has none but that it was done. */
export const Done = object('Done', {});

/**
 * Reads `presence:set`.
 * @throws CodedError VALIDATION_ERROR, PAYLOAD_TOO_LARGE
 */
export function parsePresence(payload: unknown): Readonly<Record<string, unknown>> | null {
  const { state } = parsePayload(SetPresence, payload);
  if (state == null) return null;
  if (lengthOf(state) > PRESENCE_LIMIT) {
    throw syncError('PAYLOAD_TOO_LARGE', `A presence state has at most ${PRESENCE_LIMIT} characters.`);
  }
  return state;
}

function lengthOf(state: object): number {
  try {
    return JSON.stringify(state).length;
  } catch {
    // Nested so deeply that it cannot even be written.
    return Number.POSITIVE_INFINITY;
  }
}
