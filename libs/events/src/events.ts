import type { TenantId } from '@atomo-cc/kernel';

/** What a command has decided should be remembered. */
export interface NewEvent {
  /** `Contact.created` and its kin. */
  readonly type: string;
  /** The version of the shape of `data`; it grows when the shape changes, and an upcaster then reads the old one. */
  readonly schemaVersion: number;
  readonly data: Readonly<Record<string, unknown>>;
  /** Which fields of `data` tell something about a person; the log keeps them sealed. Absent where there are none. */
  readonly personal?: PersonalFields;
}

/** Fields that are readable for as long as the key of their subject exists. */
export interface PersonalFields {
  /** Whom they are about: the stream of that record, `Contact-<id>`. */
  readonly subject: string;
  readonly fields: readonly string[];
}

/** Who did it and in what connection; the same for all events of one command. */
export interface EventMetadata {
  /** `user:<id>`, `key:<id>`, or `system:<part>`. */
  readonly actor: string;
  /** One id for everything that a request set off. */
  readonly correlationId: string;
  /** The id of the command that caused the event. */
  readonly causationId: string;
  /** The network address that the request came from, where there was one. */
  readonly address?: string;
  /** The span that appended the event (W3C Trace Context), so that what follows from it joins the same trace. */
  readonly traceparent?: string;
  /** Of a `restored` event: the version whose values the record has again. */
  readonly restoredVersion?: number;
}

/** An event as the log keeps it. */
export interface RecordedEvent extends NewEvent {
  /** The place in the log of all tenants: later events have greater ones; numbers may be missing. */
  readonly position: bigint;
  readonly tenant: TenantId;
  /** `Contact-<id>`. */
  readonly stream: string;
  /** The place in the stream, from 1 on without gaps. */
  readonly streamVersion: number;
  readonly metadata: EventMetadata;
  readonly recordedAt: Date;
}

/** The kinds of event that every model has, with the version of their shape. */
export const MODEL_EVENT_VERSIONS = { created: 1, updated: 1, restored: 1 } as const;
/** A kind of event that every model has. */
export type ModelEventKind = keyof typeof MODEL_EVENT_VERSIONS;

/**
 * `created` carries all values that were given, `updated` those that changed, `restored` those that changed back to what
 * they were at an earlier version, all by the names under which fields are written. The id stands in the stream's name.
 */
export function modelEvent(model: string, kind: ModelEventKind, data: NewEvent['data']): NewEvent {
  return { type: `${model}.${kind}`, schemaVersion: MODEL_EVENT_VERSIONS[kind], data };
}

/** The stream of one record. */
export function modelStream(model: string, id: string): string {
  return `${model}-${id}`;
}
