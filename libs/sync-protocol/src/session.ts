import { ArrayMaxSize, IsArray, IsIn, IsInt, IsObject, IsOptional, Length, Max, MaxLength, Min } from 'class-validator';
import type { Digest } from './digest.js';
import { type Sync2ErrorBody, syncError } from './errors.js';
import type { ContentHash } from './hashes.js';
import type { Permission } from './keys.js';
import { FILE_LIMIT_BYTES, MISSING_LIMIT, PART_LIMIT_BYTES, PRESENCE_LIMIT } from './limits.js';
import { Cursor } from './log.js';
import type { SyncPath } from './paths.js';
import { IsContentHash, IsContentHashes, IsPartBytes, IsStorableText, parsePayload } from './payload.js';

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
  /** SnapshotQuery → Snapshot */
  snapshot: 'snapshot',
  /** DigestQuery → DigestAnswer */
  digest: 'digest',
  /** {hashes} → {missing} */
  missing: 'missing',
  /** {hash, bytes} → {} */
  upload: 'upload',
  /** Download → {bytes, size} */
  download: 'download',
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
export interface KeyScope {
  readonly id: string;
  readonly permissions: readonly Permission[];
  /** The folders that the key sees and writes; empty: the whole store. */
  readonly prefixes: readonly SyncPath[];
  /** ISO 8601; null: never. */
  readonly expiresAt: string | null;
}

/** What this gateway takes at once; clients keep to it instead of to constants of their own. */
export interface Limits {
  readonly inlineBytes: number;
  readonly partBytes: number;
  readonly fileBytes: number;
  readonly pathChars: number;
  readonly pushOps: number;
  readonly pushBytes: number;
  readonly pageItems: number;
  readonly opsPerSecond: number;
  /** What the store may hold, history not counted; null: no limit. */
  readonly quotaBytes: number | null;
}

/** The first event of a connection. What tells of the store's content is null for keys that may not read. */
export interface Ready {
  readonly protocol: typeof PROTOCOL_2;
  readonly storeId: string;
  readonly epoch: string;
  readonly head: number | null;
  /** Cursors below it need a snapshot. */
  readonly floor: number | null;
  /** ISO 8601. */
  readonly serverTime: string;
  readonly key: KeyScope;
  readonly limits: Limits;
  /** Bytes of live files. */
  readonly usedBytes: number | null;
  /** Of the files that the key sees, at `head`. */
  readonly digest: Digest | null;
  readonly count: number | null;
}

/** `head`: the store has moved to `seq`. Sent without changes to clients that are slow to take them: pull when ready. */
export interface Head {
  readonly epoch: string;
  readonly seq: number;
}

/** `resync`: the cursor is void; read a snapshot and go on from its head. */
export interface Resync {
  readonly reason: 'EPOCH' | 'FLOOR' | 'SCOPE';
  readonly epoch: string;
  readonly head: number;
}

/** `revoked`: why the connection ends. After SCOPE_CHANGED connect again, and expect a `resync`. */
export interface Revoked {
  readonly code: 'KEY_REVOKED' | 'KEY_EXPIRED' | 'SCOPE_CHANGED';
}

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

/** `presence:set`: what the others may see of this device, such as the open file; null takes it back. Kept nowhere. */
export class SetPresence {
  @IsOptional() @IsObject() state?: Readonly<Record<string, unknown>> | null;
}

/** One device of the store, as `presence` tells of it; `state` null: it is gone. */
export interface Presence {
  readonly deviceId: string;
  readonly name: string | null;
  readonly state: Readonly<Record<string, unknown>> | null;
}

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
