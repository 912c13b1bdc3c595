import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';
import { CodedError, isCodedError, type TenantId } from '@atomo-cc/kernel';
import type { EventMetadata, NewEvent, RecordedEvent } from '@atomo-cc/events';
import {
  byteaArray,
  intArray,
  jsonArray,
  sqlState,
  textArray,
  violatedConstraint,
  type Tx,
} from '@atomo-cc/platform/postgres';
import { FENCE_LOCK } from './fence.js';

/** What the caller believes of the stream: anything, that it has no events yet (also 0), or that it is exactly at this version. */
export type ExpectedVersion = 'any' | 'none' | number;

/** What one command adds to one stream. */
export interface StreamAppend {
  readonly stream: string;
  readonly expected: ExpectedVersion;
  readonly events: readonly NewEvent[];
  readonly metadata: EventMetadata;
}

/** Makes of appends what is stored of them, in their transaction: see EventCodec. */
export interface AppendCodec {
  encode(tx: Tx, tenant: TenantId, appends: readonly StreamAppend[]): Promise<readonly StreamAppend[]>;
}

/** Either everything was appended, or nothing: then a stream was not at the expected version, and this is the one it is at. */
export type AppendResult = { readonly ok: true; readonly events: readonly RecordedEvent[] } | AppendConflict;

/** The stream that was not at the expected version, and the one it is at. */
export interface AppendConflict {
  readonly ok: false;
  readonly stream: string;
  readonly currentVersion: number;
}

/**
 * Bytes of an event's data as JSON. Every reader loads whole pages of events, every projection whole batches, and a value of
 * jsonb is written anew for each look into it: what is larger belongs into a blob that the event names.
 */
export const MAX_EVENT_BYTES = 1024 * 1024;

/** Events that the log does not take. */
export const APPEND_ERRORS = {
  EVENT_TOO_LARGE: 'The data of an event is larger than 1 MiB. Nothing was written; put large content into a blob.',
  EVENT_NOT_STORABLE:
    'A value in an event cannot be stored, such as a text with a NUL character or half a surrogate pair. Nothing was written.',
} as const;

/**
 * Appends events to any number of streams, with their audit rows, in the caller's transaction and in two statements. After a
 * conflict the transaction must be rolled back. A stream may stand there several times; its later events follow the earlier
 * ones, and each entry's expectation is that after the entries before it.
 *
 * Order: fence, then the row of each stream, then positions. The streams' rows are locked to the end of the transaction, so
 * within a stream positions and times grow with versions; they are locked in the order of their names, so two appends to the
 * same streams wait for each other instead of deadlocking.
 * @throws CodedError EVENT_TOO_LARGE, EVENT_NOT_STORABLE before anything is written
 */
export async function append(tx: Tx, tenant: TenantId, appends: readonly StreamAppend[]): Promise<AppendResult> {
  const texts = textsOf(appends);
  const begun = new Set<string>();
  const links = link(tenant, appends, texts, begun, await raiseVersions(tx, tenant, appends, begun));
  if (!links.ok) return links;
  const [logged] = await tx.prepared<{ positions: string | null }>(INSERT_EVENTS, insertParameters(tenant, links));
  const positions = logged!.positions?.split(',') ?? [];
  return {
    ok: true,
    events: links.events.map(({ stream, version, event, metadata }, n) => ({
      position: BigInt(positions[n]!),
      tenant,
      stream,
      streamVersion: version,
      type: event.type,
      schemaVersion: event.schemaVersion,
      data: event.data,
      metadata,
      recordedAt: links.recordedAt,
    })),
  };
}

/**
 * As `append`, for callers that need no positions: the events are on their way when it answers with the time that they bear,
 * and if they cannot be written the transaction fails (see `Tx.send`). It saves a round trip, and for each new stream a write:
 * one that is expected to be new is not looked for but begun with its last version and link. So when there is one after all,
 * that is no answer but an error at the commit, for which `isStreamTaken` is true.
 * @param codec seals what is personal, while the streams are being locked
 * @throws CodedError EVENT_TOO_LARGE, EVENT_NOT_STORABLE; else what `encode` of the codec throws. Roll back
 */
export async function sendAppend(
  tx: Tx,
  tenant: TenantId,
  appends: readonly StreamAppend[],
  codec?: AppendCodec,
): Promise<{ readonly ok: true; readonly recordedAt: Date } | AppendConflict> {
  const begun = new Map<string, boolean>();
  for (const { stream, expected } of appends) {
    if (!begun.has(stream)) begun.set(stream, expected === 'none' || expected === 0);
  }
  const taken = new Set([...begun.keys()].filter((stream) => begun.get(stream)));
  // Neither needs the other's answer. Keys before streams, as with everybody else who takes both.
  const [stored, raised] = await Promise.all([
    codec ? codec.encode(tx, tenant, appends) : appends,
    raiseVersions(tx, tenant, appends, taken),
  ]);
  const links = link(tenant, stored, textsOf(stored), taken, raised);
  if (!links.ok) return links;
  tx.send(INSERT_EVENTS, insertParameters(tenant, links));
  return links;
}

/** True for the error of a transaction that began a stream (see `sendAppend`) which is there already. */
export function isStreamTaken(error: unknown): boolean {
  return sqlState(error) === '23505' && STREAM_PLACES.includes(violatedConstraint(error) ?? '');
}

/** The row of a stream, and the place of an event in it; whichever is written first finds the other's. */
const STREAM_PLACES = ['event_streams_pkey', 'event_log_tenant_id_stream_stream_version_key'];

/**
 * Why the log would refuse an event whatever else there is, or null. Who commits the events of several callers together asks
 * before, so that one such event does not make the others wait for another transaction.
 */
export function refusalOf({ type, data }: Pick<NewEvent, 'type' | 'data'>): CodedError | null {
  try {
    storable(type, data);
    return null;
  } catch (error) {
    if (isCodedError(error)) return error;
    throw error;
  }
}

/** @throws TypeError for an event whose personal fields EventCodec has not sealed: once in the log they could never be erased */
function requireSealed({ type, personal }: NewEvent): void {
  if (personal?.fields.length) throw new TypeError(`the personal fields of ${type} are not sealed: encode it first`);
}

/** The canonical JSON of a value. @throws CodedError EVENT_TOO_LARGE, EVENT_NOT_STORABLE */
function storable(what: string, value: object): string {
  let json: string;
  try {
    json = canonicalize(value)!;
  } catch (cause) {
    // Half a surrogate pair, NaN, an infinite number, a circle.
    const message = `The values of ${what} cannot be stored: ${(cause as Error).message}.`;
    throw new CodedError('EVENT_NOT_STORABLE', message, undefined, { cause });
  }
  // A character has 3 bytes at most, so most texts need not be measured.
  if (json.length > MAX_EVENT_BYTES / 3 && Buffer.byteLength(json) > MAX_EVENT_BYTES) {
    throw new CodedError('EVENT_TOO_LARGE', `The values of ${what} have more than ${MAX_EVENT_BYTES} bytes as JSON.`);
  }
  if (json.includes('\\u0000') && ESCAPED_NUL.test(json)) {
    throw new CodedError('EVENT_NOT_STORABLE', `A text of ${what} has a NUL character, which cannot be stored.`);
  }
  return json;
}

/** JSON's escape of NUL, unless its backslash is escaped itself. */
const ESCAPED_NUL = /(?<!\\)(?:\\\\)*\\u0000/;

/**
 * The link of an event in its stream's chain: SHA-256 of the link before it and of everything the event says but its
 * position, as canonical JSON (RFC 8785). Changing, removing or inserting an event breaks every link behind it.
 */
export function chainHash(previous: Buffer, event: Omit<RecordedEvent, 'position'>): Buffer {
  const { tenant, stream, streamVersion, type, schemaVersion, recordedAt } = event;
  const parts = { data: canonicalize(event.data)!, metadata: canonicalize(event.metadata)! };
  return hashOf(previous, tenant, stream, streamVersion, type, schemaVersion, parts, recordedAt.toISOString());
}

/** The names of canonical JSON stand in the order of the alphabet; what is large has been written before. */
function hashOf(
  previous: Buffer,
  tenant: TenantId,
  stream: string,
  version: number,
  type: string,
  schemaVersion: number,
  { data, metadata }: { readonly data: string; readonly metadata: string },
  at: string,
): Buffer {
  const said = `{"at":"${at}","data":${data},"metadata":${metadata},"schemaVersion":${schemaVersion},"stream":${JSON.stringify(stream)},"tenant":"${tenant}","type":${JSON.stringify(type)},"version":${version}}`;
  return createHash('sha256').update(previous).update(said).digest();
}

/** An event that has its place in its stream and its link. */
interface Linked {
  readonly stream: string;
  readonly version: number;
  readonly event: NewEvent;
  readonly metadata: EventMetadata;
  /** As they are hashed, and stored. */
  readonly json: { readonly data: string; readonly metadata: string };
  readonly hash: Buffer;
}

interface Head {
  version: number;
  /** Empty before the first event. */
  hash: Buffer;
}

/** Events that can be written. */
interface Links {
  readonly ok: true;
  readonly events: readonly Linked[];
  /** As they are behind the events. */
  readonly heads: ReadonlyMap<string, Head>;
  /** Those of the streams that have no row yet. */
  readonly begun: ReadonlySet<string>;
  readonly recordedAt: Date;
}

/** What one append is stored as. */
interface Texts {
  readonly data: readonly string[];
  readonly metadata: string;
}

/** @throws CodedError EVENT_TOO_LARGE, EVENT_NOT_STORABLE */
function textsOf(appends: readonly StreamAppend[]): Texts[] {
  for (const { events } of appends) events.forEach(requireSealed);
  return appends.map(({ events, metadata }) => ({
    data: events.map(({ type, data }) => storable(type, data)),
    metadata: storable('the metadata', metadata),
  }));
}

/** Gives the events their places behind the heads of their streams, which are moved. */
function link(
  tenant: TenantId,
  appends: readonly StreamAppend[],
  texts: readonly Texts[],
  begun: ReadonlySet<string>,
  { heads, recordedAt }: Raised,
): Links | AppendConflict {
  const at = recordedAt.toISOString();
  const linked: Linked[] = [];
  for (const [n, { stream, expected, events, metadata }] of appends.entries()) {
    const head = heads.get(stream)!;
    const known = expected === 'none' ? 0 : expected;
    if (known !== 'any' && known !== head.version) return { ok: false, stream, currentVersion: head.version };
    for (const [m, event] of events.entries()) {
      head.version += 1;
      const json = { data: texts[n]!.data[m]!, metadata: texts[n]!.metadata };
      head.hash = hashOf(head.hash, tenant, stream, head.version, event.type, event.schemaVersion, json, at);
      linked.push({ stream, version: head.version, event, metadata, json, hash: head.hash });
    }
  }
  return { ok: true, events: linked, heads, begun, recordedAt };
}

/**
 * Takes the fence, locks the streams' rows and raises their versions. Streams that are at version 1 by this and had no link,
 * which are mostly the new ones, are not told one by one. The time is that at which the last row was locked.
 */
const RAISE_VERSIONS = `
  with fence as materialized (
    select pg_advisory_xact_lock_shared($4)
  ), raised as (
    insert into event_streams as s (tenant_id, stream, version, hash)
    select $1, w.stream, w.events, ''
    from fence, unnest($2::text[], $3::int[]) as w (stream, events)
    order by w.stream
    on conflict (tenant_id, stream) do update set version = s.version + excluded.version
    returning stream, version, hash, clock_timestamp() as at
  )
  select t.at, r.stream, r.version, r.hash
  from fence
  cross join (select date_trunc('milliseconds', coalesce(max(at), clock_timestamp())) as at from raised) t
  left join raised r on r.version <> 1 or r.hash <> ''`;

/** Streams that are locked. */
interface Raised {
  /** As they were before. */
  readonly heads: Map<string, Head>;
  /** The time of the events. */
  readonly recordedAt: Date;
}

/** The first statement: all but writing the events, and the rows of streams that are taken for new. */
async function raiseVersions(
  tx: Tx,
  tenant: TenantId,
  appends: readonly StreamAppend[],
  begun: ReadonlySet<string>,
): Promise<Raised> {
  const heads = new Map<string, Head>();
  const counts = new Map<string, number>();
  for (const { stream, events } of appends) {
    if (begun.has(stream)) heads.set(stream, { version: 0, hash: NO_LINK });
    else counts.set(stream, (counts.get(stream) ?? 0) + events.length);
  }
  const rows = await tx.prepared<{ at: Date; stream: string | null; version: number; hash: Buffer }>(RAISE_VERSIONS, [
    tenant,
    textArray([...counts.keys()]),
    intArray([...counts.values()]),
    FENCE_LOCK,
  ]);
  for (const [stream, events] of counts) heads.set(stream, { version: 1 - events, hash: NO_LINK });
  for (const { stream, version, hash } of rows) {
    if (stream !== null) heads.set(stream, { version: version - counts.get(stream)!, hash });
  }
  return { heads, recordedAt: rows[0]!.at };
}

const NO_LINK = Buffer.alloc(0);

/**
 * The last links of the streams, the events and their audit rows. Positions are drawn in the order of the events. The rows of
 * the streams are there and locked: `on conflict` finds each by its key, where an `update` with a join reads the whole table
 * once a plan was made while it was small.
 */
const INSERT_EVENTS = `
  with e as materialized (
    select nextval('event_log_position') as position, u.*
    from unnest($3::text[], $4::int[], $5::text[], $6::int[], $7::jsonb[], $8::jsonb[], $9::bytea[], $10::text[])
      as u (stream, version, type, schema_version, data, metadata, hash, fields)
  ), moved as (
    insert into event_streams (tenant_id, stream, version, hash)
    select $1, h.stream, 0, h.hash from unnest($11::text[], $12::bytea[]) as h (stream, hash)
    on conflict (tenant_id, stream) do update set hash = excluded.hash
  ), begun as (
    insert into event_streams (tenant_id, stream, version, hash)
    select $1, b.stream, b.version, b.hash
    from unnest($13::text[], $14::int[], $15::bytea[]) as b (stream, version, hash)
    order by b.stream
  ), logged as (
    insert into event_log
      (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at, hash)
    select position, $1, stream, version, type, schema_version, data, metadata, $2::timestamptz, hash from e
  ), audited as (
    insert into audit_log
      (tenant_id, position, recorded_at, actor, action, stream, stream_version, fields, address)
    select $1, position, $2::timestamptz, metadata ->> 'actor', type, stream, version, fields::text[], metadata ->> 'address'
    from e
  )
  select string_agg(position::text, ',' order by position) as positions from e`;

function insertParameters(tenant: TenantId, { events, heads, begun, recordedAt }: Links): unknown[] {
  const all = [...heads];
  const moved = begun.size === 0 ? all : all.filter(([stream]) => !begun.has(stream));
  const made = begun.size === 0 ? [] : all.filter(([stream]) => begun.has(stream));
  return [
    tenant,
    recordedAt,
    textArray(events.map(({ stream }) => stream)),
    intArray(events.map(({ version }) => version)),
    textArray(events.map(({ event }) => event.type)),
    intArray(events.map(({ event }) => event.schemaVersion)),
    jsonArray(events.map(({ json }) => json.data)),
    jsonArray(events.map(({ json }) => json.metadata)),
    byteaArray(events.map(({ hash }) => hash)),
    textArray(events.map(({ event }) => auditedFields(event.data))),
    textArray(moved.map(([stream]) => stream)),
    byteaArray(moved.map(([, { hash }]) => hash)),
    textArray(made.map(([stream]) => stream)),
    intArray(made.map(([, { version }]) => version)),
    byteaArray(made.map(([, { hash }]) => hash)),
  ];
}

/** By the names as they come: those of an event's type are the same in every event, or in a few ways. */
const fieldLists = new Map<string, string>();
/** An event may have any names; those of the models are some dozens. */
const MAX_FIELD_LISTS = 1_000;

/**
 * The names of the fields that an event tells of, as an array's literal, sealed ones included; names that begin with `$` are the
 * store's own.
 */
function auditedFields(data: NewEvent['data']): string {
  const { $sealed: sealed } = data as { $sealed?: { readonly fields: readonly string[] } };
  const names = sealed ? [...Object.keys(data), ...sealed.fields] : Object.keys(data);
  // No name has a NUL, which no event may have.
  const key = names.join('\0');
  let literal = fieldLists.get(key);
  if (literal === undefined) {
    const told = new Set(names.filter((name) => !name.startsWith('$')));
    literal = arrayLiteral([...told].sort());
    if (fieldLists.size < MAX_FIELD_LISTS) fieldLists.set(key, literal);
  }
  return literal;
}

/** Of arrays within an array, which need not have one length, each is written as Postgres reads it. */
function arrayLiteral(names: readonly string[]): string {
  return `{${names.map((name) => `"${name.replaceAll(/["\\]/g, (character) => `\\${character}`)}"`).join(',')}}`;
}

/** A row of the log. */
export interface Row {
  position: string;
  stream: string;
  stream_version: number;
  type: string;
  schema_version: number;
  data: Readonly<Record<string, unknown>>;
  metadata: EventMetadata;
  recorded_at: Date;
}

/** Turns a row of the log into an event. */
export function toEvent(tenant: TenantId, row: Row): RecordedEvent {
  return {
    position: BigInt(row.position),
    tenant,
    stream: row.stream,
    streamVersion: row.stream_version,
    type: row.type,
    schemaVersion: row.schema_version,
    data: row.data,
    metadata: row.metadata,
    recordedAt: row.recorded_at,
  };
}
