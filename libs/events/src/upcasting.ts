import { CodedError } from '@atomo-cc/kernel';
import {
  ACCESS_EVENT_VERSIONS,
  type AccessEventKind,
  MODEL_EVENT_VERSIONS,
  type ModelEventKind,
  type NewEvent,
} from './events.js';

/** Why an event cannot be read. */
export const EVENT_ERRORS = {
  EVENT_TYPE_UNKNOWN:
    'The log has an event of a type that this version of Atomo does not know. Deploy the version that wrote it, or a newer one.',
  EVENT_VERSION_UNKNOWN:
    'The log has an event in a version of its shape that this version of Atomo does not know. Deploy the version that wrote it, or a newer one.',
} as const;

/**
 * Turns the data of one version of a shape into that of the next. Pure and total: it is run whenever an old event is read,
 * and meets null in every field whose subject was erased.
 */
export type Upcaster = (data: NewEvent['data']) => NewEvent['data'];

/** The shape of one type of event through its versions. */
export interface EventShape {
  /** The version that is written today; they count from 1. */
  readonly version: number;
  /** For each version before it, how its data becomes that of the next one. */
  readonly upcasters: Readonly<Record<number, Upcaster>>;
}

/** For each model, its fields' former names with those of today, as events name them. */
export type FormerNames = ReadonlyMap<string, ReadonlyMap<string, string>>;

/**
 * The types of event that there are. Models are declared by whoever runs Atomo, so theirs stand under `*.created` and its
 * kin, which hold for every name before the dot; every other type stands under its own name.
 */
export class EventCatalogue {
  private readonly shapes: ReadonlyMap<string, EventShape>;

  /**
   * @param formerNames fields of models that were renamed since events were written
   * @throws TypeError for a shape with a version that nothing leads on from, or with an upcaster too many
   */
  constructor(
    shapes: Readonly<Record<string, EventShape>>,
    private readonly formerNames: FormerNames = new Map(),
  ) {
    this.shapes = new Map(Object.entries(shapes));
    for (const [type, { version, upcasters }] of this.shapes) {
      const older = Array.from({ length: version - 1 }, (_, index) => String(index + 1));
      if (Object.keys(upcasters).join() !== older.join()) {
        throw new TypeError(
          `${type} is at version ${version}: it needs an upcaster from each version before, and no other`,
        );
      }
    }
  }

  /** The same types, where fields of models were renamed. */
  withFormerNames(formerNames: FormerNames): EventCatalogue {
    return new EventCatalogue(Object.fromEntries(this.shapes), formerNames);
  }

  /** A model's values under the names that its fields have today; the same object when they stand under them already. */
  renamed(model: string, data: NewEvent['data']): NewEvent['data'] {
    const names = this.formerNames.get(model);
    if (!names || !Object.keys(data).some((name) => names.has(name))) return data;
    return Object.fromEntries(Object.entries(data).map(([name, value]) => [names.get(name) ?? name, value]));
  }

  /** All types with the version that is written today. */
  versions(): ReadonlyMap<string, number> {
    return new Map([...this.shapes].map(([type, { version }]) => [type, version]));
  }

  /**
   * The event with its data in today's shape and under today's names; the same object when it has those already.
   * @throws CodedError EVENT_TYPE_UNKNOWN, EVENT_VERSION_UNKNOWN; the details name type, version and, of a recorded event,
   * position
   */
  upcast<Event extends Pick<NewEvent, 'type' | 'schemaVersion' | 'data'>>(event: Event): Event {
    const { type, schemaVersion } = event;
    const dot = type.indexOf('.');
    const shape = this.shapes.get(type) ?? this.shapes.get(`*${type.slice(dot)}`);
    if (!shape) throw unreadable('EVENT_TYPE_UNKNOWN', event);
    if (!Number.isInteger(schemaVersion) || schemaVersion < 1 || schemaVersion > shape.version) {
      throw unreadable('EVENT_VERSION_UNKNOWN', event);
    }
    let { data } = event;
    for (let version = schemaVersion; version < shape.version; version += 1) data = shape.upcasters[version]!(data);
    data = this.renamed(type.slice(0, dot), data);
    return data === event.data && schemaVersion === shape.version
      ? event
      : { ...event, schemaVersion: shape.version, data };
  }
}

function unreadable(code: keyof typeof EVENT_ERRORS, event: Pick<NewEvent, 'type' | 'schemaVersion'>): CodedError {
  const { type, schemaVersion } = event;
  const position = 'position' in event ? { position: String(event.position) } : {};
  const at = 'position' in position ? ` (position ${position.position})` : '';
  return new CodedError(
    code,
    `This version of Atomo cannot read ${type} in schema version ${schemaVersion}${at}. Deploy the one that wrote it, or a newer one.`,
    { type, schemaVersion, ...position },
  );
}

/** How older shapes of the models' events become today's. */
const MODEL_UPCASTERS: Readonly<Record<ModelEventKind, EventShape['upcasters']>> = {
  created: {},
  updated: {},
  restored: {},
  deleted: {},
  purged: {},
  erased: {},
};

/** As MODEL_UPCASTERS, of the events about those who may come in. */
const ACCESS_UPCASTERS: Readonly<Record<AccessEventKind, EventShape['upcasters']>> = {
  loggedIn: {},
  loginRefused: {},
  loggedOut: {},
  refreshReused: {},
  sessionsRevoked: {},
  passwordChanged: {},
  tokenCreated: {},
  tokenRevoked: {},
  keyIssued: {},
  keyRotated: {},
  keyRevoked: {},
  secretSet: {},
  secretRemoved: {},
  denied: {},
  subjectExported: {},
  userCreated: {},
  userChanged: {},
  userDeleted: {},
  passwordReset: {},
  tenantCreated: {},
  tenantChanged: {},
  tenantLimitChanged: {},
  tenantSuspended: {},
  tenantResumed: {},
  tenantDeleted: {},
};

function shapesOf<Kind extends string>(
  prefix: string,
  versions: Readonly<Record<Kind, number>>,
  upcasters: Readonly<Record<Kind, EventShape['upcasters']>>,
): Record<string, EventShape> {
  const kinds = Object.keys(versions) as Kind[];
  return Object.fromEntries(
    kinds.map((kind) => [`${prefix}.${kind}`, { version: versions[kind], upcasters: upcasters[kind] }]),
  );
}

/** The events that Atomo writes. */
export const ATOMO_EVENTS = new EventCatalogue({
  ...shapesOf('*', MODEL_EVENT_VERSIONS, MODEL_UPCASTERS),
  ...shapesOf('access', ACCESS_EVENT_VERSIONS, ACCESS_UPCASTERS),
});
