import type { KeyObject } from 'node:crypto';
import { CodedError, type TenantId } from '@atomo-cc/kernel';
import type { EventCatalogue, NewEvent, PersonalFields, RecordedEvent } from '@atomo-cc/events';
import { open, seal, SEALED_DATA_ERRORS } from '@atomo-cc/platform/encryption';
import type { Tx } from '@atomo-cc/platform/postgres';
import type { StreamAppend } from './append.js';
import type { StoredKey, SubjectKey, SubjectKeyName, SubjectKeys } from './subject-keys.js';

/** Where sealed fields stand in stored data. Names that begin with `$` belong to the store. */
const SEALED = '$sealed';
/** What a record's state is sealed as, where events have their type. */
const STATE = '$state';

/** The greatest `int` of Postgres: with a greater number the question for the key would be an error. */
const MAX_GENERATION = 2 ** 31 - 1;

type Data = NewEvent['data'];

/** Personal fields as they are stored. */
interface SealedFields {
  readonly subject: string;
  /** The generation of the subject's key. */
  readonly key: number;
  readonly fields: readonly string[];
  /** Base64: the fields' values as JSON, sealed. */
  readonly box: string;
}

/** What the data belongs to, and what its box is bound to. */
interface Place {
  readonly tenant: TenantId;
  readonly stream: string;
  readonly type: string;
}

/**
 * Between events as they are decided and read, and events as they are stored: personal fields are sealed under the key of
 * their subject, and older shapes are read as today's. The chain of a stream covers what is stored.
 */
export class EventCodec {
  constructor(
    private readonly keys: SubjectKeys,
    private readonly catalogue: EventCatalogue,
  ) {}

  /**
   * The appends as they are stored; no event of them has `personal` any more. One statement for the keys of all subjects, two
   * where some are new and some are not, and none where nothing is personal. Call it right before `append`, in its transaction.
   * @throws CodedError ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN
   * @throws TypeError for data that has a field of the store's own
   */
  async encode(tx: Tx, tenant: TenantId, appends: readonly StreamAppend[]): Promise<readonly StreamAppend[]> {
    const subjects = new Set<string>();
    // Who begins a stream brings its subject into the log: there is hardly a key of it yet.
    const fresh = new Set<string>();
    for (const { stream, expected, events } of appends) {
      for (const { data, personal } of events) {
        if (SEALED in data) throw new TypeError(`${SEALED} belongs to the store`);
        if (!personal?.fields.length) continue;
        subjects.add(personal.subject);
        if (personal.subject === stream && (expected === 'none' || expected === 0)) fresh.add(stream);
      }
    }
    if (subjects.size === 0) return appends;
    const keys = await this.keys.current(tx, tenant, subjects, fresh);
    return appends.map((entry) => {
      const events = entry.events.map((event): NewEvent => {
        const { type, schemaVersion, data, personal } = event;
        if (!personal?.fields.length) return event;
        const place = { tenant, stream: entry.stream, type };
        return { type, schemaVersion, data: sealFields(place, data, personal, keys.get(personal.subject)!) };
      });
      return { ...entry, events };
    });
  }

  /**
   * Stored events as they were decided, in today's shape: personal fields opened, or null where the key of their subject was
   * destroyed. One statement for all keys, of any tenants that the transaction may see, and none where nothing is sealed.
   * @param read keys that were read along with the events: where they are all that is needed, no statement either
   * @throws CodedError EVENT_TYPE_UNKNOWN, EVENT_VERSION_UNKNOWN, ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN; the details of
   * all but a wrong key name the position
   */
  async decode(tx: Tx, events: readonly RecordedEvent[], read?: readonly StoredKey[]): Promise<RecordedEvent[]> {
    const keys = await this.keysOf(tx, events, read);
    return events.map((event) => {
      const data = openFields(event, event.data, keys);
      return this.catalogue.upcast(data === event.data ? event : { ...event, data });
    });
  }

  /** A record's values as a snapshot stores them: the named fields sealed as those of its events are. */
  async sealState(tx: Tx, tenant: TenantId, stream: string, values: Data, personal: PersonalFields): Promise<Data> {
    if (personal.fields.length === 0) return values;
    const keys = await this.keys.current(tx, tenant, [personal.subject]);
    return sealFields({ tenant, stream, type: STATE }, values, personal, keys.get(personal.subject)!);
  }

  /**
   * The values that `sealState` was given, under today's names; null in fields whose subject was erased since.
   * @param read as of `decode`
   */
  async openState(tx: Tx, tenant: TenantId, stream: string, stored: Data, read?: readonly StoredKey[]): Promise<Data> {
    const state = { tenant, stream, type: STATE, data: stored };
    const opened = openFields(state, stored, await this.keysOf(tx, [state], read));
    return this.catalogue.renamed(stream.slice(0, stream.indexOf('-')), opened);
  }

  /** As SubjectKeys.renew. */
  renewKey(tx: Tx, tenant: TenantId, subject: string): Promise<number> {
    return this.keys.renew(tx, tenant, subject);
  }

  private keysOf(
    tx: Tx,
    all: readonly (Place & { readonly data: Data })[],
    read?: readonly StoredKey[],
  ): Promise<Keys> {
    const names = new Map<string, SubjectKeyName>();
    for (const place of all) {
      const sealed = sealedIn(place, place.data);
      if (!sealed) continue;
      const { subject, key: generation } = sealed;
      names.set(nameOf(place.tenant, sealed), { tenant: place.tenant, subject, generation });
    }
    return this.keys.find(tx, names, read);
  }
}

/** The names of the fields of stored data, those that are sealed included. */
export function fieldNames(stored: Data): string[] {
  const { [SEALED]: sealed, ...plain } = stored as { [SEALED]?: SealedFields };
  return [...Object.keys(plain), ...(sealed?.fields ?? [])];
}

type Keys = ReadonlyMap<string, KeyObject | null>;

function nameOf(tenant: TenantId, { key, subject }: SealedFields): string {
  return `${tenant} ${key} ${subject}`;
}

function sealFields(place: Place, data: Data, personal: PersonalFields, { generation, key }: SubjectKey): Data {
  const fields = personal.fields.filter((name) => Object.hasOwn(data, name));
  if (fields.length === 0) return data;
  const { subject } = personal;
  const content = JSON.stringify(Object.fromEntries(fields.map((name) => [name, data[name]])));
  const box = seal(key, contextOf(place, subject, generation), content).toString('base64');
  const sealed: SealedFields = { subject, key: generation, fields, box };
  const plain = Object.entries(data).filter(([name]) => !fields.includes(name));
  return Object.fromEntries([...plain, [SEALED, sealed]]);
}

function openFields(place: Place, stored: Data, keys: Keys): Data {
  const sealed = sealedIn(place, stored);
  if (!sealed) return stored;
  const key = keys.get(nameOf(place.tenant, sealed));
  if (key === undefined) throw broken(place, `there is no key ${sealed.key} of ${sealed.subject}`);
  const { [SEALED]: _sealed, ...plain } = stored;
  if (key === null) return { ...plain, ...Object.fromEntries(sealed.fields.map((name) => [name, null])) };
  const content = open(key, contextOf(place, sealed.subject, sealed.key), Buffer.from(sealed.box, 'base64'));
  if (!content) throw broken(place, 'its sealed fields were changed, or belong to another event');
  return { ...plain, ...(JSON.parse(content.toString('utf8')) as Data) };
}

/** What is sealed in stored data. @throws CodedError SEALED_DATA_BROKEN when it has not the form it was written in */
function sealedIn(place: Place, stored: Data): SealedFields | null {
  const sealed = stored[SEALED] as Partial<SealedFields> | null | undefined;
  if (sealed === undefined) return null;
  const isWhole =
    typeof sealed?.subject === 'string' &&
    Number.isInteger(sealed.key) &&
    sealed.key! > 0 &&
    sealed.key! <= MAX_GENERATION &&
    Array.isArray(sealed.fields) &&
    typeof sealed.box === 'string';
  if (!isWhole) throw broken(place, 'its sealed fields have lost their form');
  return sealed as SealedFields;
}

function contextOf({ tenant, stream, type }: Place, subject: string, generation: number): readonly unknown[] {
  return ['atomo sealed fields', tenant, stream, type, subject, generation];
}

function broken(place: Place, reason: string): CodedError {
  const { stream, type } = place;
  const position = 'position' in place ? { position: String(place.position) } : {};
  const at = 'position' in position ? ` at position ${position.position}` : '';
  return new CodedError(
    'SEALED_DATA_BROKEN',
    `${type} of ${stream}${at} cannot be opened: ${reason}. ${SEALED_DATA_ERRORS.SEALED_DATA_BROKEN}`,
    { stream, type, ...position },
  );
}
