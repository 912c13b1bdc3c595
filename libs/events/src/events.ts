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
  /**
   * `user:<id>`, `token:<id>`, `key:<id>`, `operator:<login name>` for who works at the command line, `system:<part>`, or
   * `nobody` for somebody who could not say who they are.
   */
  readonly actor: string;
  /** One id for everything that a request set off. */
  readonly correlationId: string;
  /** The id of the command that caused the event. */
  readonly causationId: string;
  /** The network address that the request came from, where there was one. */
  readonly address?: string;
  /** The span that appended the event (W3C Trace Context), so that what follows from it joins the same trace. */
  readonly traceparent?: string;
  /** Why, in the words of who did it, where they were asked. */
  readonly reason?: string;
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
export const MODEL_EVENT_VERSIONS = { created: 1, updated: 1, restored: 1, deleted: 1, purged: 1, erased: 1 } as const;
/** A kind of event that every model has. */
export type ModelEventKind = keyof typeof MODEL_EVENT_VERSIONS;

/**
 * `created` carries all values that were given, `updated` those that changed, `restored` those that changed back to what
 * they were at an earlier version, all by the names under which fields are written. The id stands in the stream's name.
 * A record that was `deleted` is there again once it is `restored`, maybe without any value. After `purged` nothing comes.
 * `erased` carries null for each field that was personal: the record stays what it was, there or deleted, without them.
 */
export function modelEvent(model: string, kind: ModelEventKind, data: NewEvent['data']): NewEvent {
  return { type: `${model}.${kind}`, schemaVersion: MODEL_EVENT_VERSIONS[kind], data };
}

/**
 * What happens to those who may come in, with the version of its shape. Names of models begin with a capital letter, so no model
 * can have an event of these types, nor a record in their streams.
 */
export const ACCESS_EVENT_VERSIONS = {
  /** A session was opened: `{session}`. */
  loggedIn: 1,
  /** Logins that were refused: `{reason, count, addresses}`; `addresses` is how many they came from. */
  loginRefused: 1,
  /** Somebody ended their own session: `{session}`. */
  loggedOut: 1,
  /** A refresh token came a second time, and its session was ended: `{session}`. */
  refreshReused: 1,
  /** Sessions were ended: `{sessions, reason}`. */
  sessionsRevoked: 1,
  /** A person has chosen another password: `{}`. */
  passwordChanged: 1,
  /** A token for a machine was made: `{name, role, scopes, expiresAt}`. */
  tokenCreated: 1,
  /** A token was revoked: `{reason}`. */
  tokenRevoked: 1,
  /** A key of a store was issued: `{store, name, permissions, prefixes, expiresAt}`. */
  keyIssued: 1,
  /** Another key took the place of this one, which ends after an overlap: `{store, heir, overlapSeconds}`. */
  keyRotated: 1,
  /** A key was revoked, or went with its store: `{store, reason}`. */
  keyRevoked: 1,
  /** A secret of the tenant was set, for the first time or anew: `{name}`. */
  secretSet: 1,
  /** A secret of the tenant was removed: `{name}`. */
  secretRemoved: 1,
  /** Requests that were forbidden: `{operation, count, addresses}`. */
  denied: 1,
  /** All that is kept about a record was written out: `{model, id}`; in the stream of who did it. */
  subjectExported: 1,
  /** A user was made: `{email, name, role}`; address and name are personal. */
  userCreated: 1,
  /** What became different of a user: any of `{name, role, disabled}`; the name is personal. */
  userChanged: 1,
  /** A user was removed: `{}`. */
  userDeleted: 1,
  /** Somebody else has set a user's password, and ended their sessions: `{}`. */
  passwordReset: 1,
  /** A tenant was made: `{name, slug, plan}`. */
  tenantCreated: 1,
  /** What became different of a tenant: `{plan}`. */
  tenantChanged: 1,
  /** An operator has set a limit of a tenant, or taken it back: `{quota, limit, isOwn}`; `limit` is what holds now, null none. */
  tenantLimitChanged: 1,
  /** Everybody of a tenant was shut out: `{}`. */
  tenantSuspended: 1,
  /** They were let in again: `{}`. */
  tenantResumed: 1,
  /** The deletion of a tenant began: `{slug}`; in the log of the default tenant, because its own goes with it. */
  tenantDeleted: 1,
} as const;
/** A kind of event about those who may come in. */
export type AccessEventKind = keyof typeof ACCESS_EVENT_VERSIONS;

/**
 * An event about those who may come in. Who is meant stands in the stream's name.
 * @param personal the fields of `data` that tell something about a person
 */
export function accessEvent(kind: AccessEventKind, data: NewEvent['data'], personal?: PersonalFields): NewEvent {
  const event = { type: `access.${kind}`, schemaVersion: ACCESS_EVENT_VERSIONS[kind], data };
  return personal ? { ...event, personal } : event;
}

/** The stream of what happens to a user, a token for a machine, a key of a store, or a tenant. */
export function accessStream(of: 'user' | 'token' | 'key' | 'tenant', id: string): string {
  return `${of}-${id}`;
}

/** What kind of event a model's event is. */
export function kindOf({ type }: Pick<NewEvent, 'type'>): ModelEventKind {
  return type.slice(type.lastIndexOf('.') + 1) as ModelEventKind;
}

/** The stream of one record. */
export function modelStream(model: string, id: string): string {
  return `${model}-${id}`;
}
