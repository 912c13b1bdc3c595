import type { Permission } from './keys.js';
import { Changes, Cursor, DigestAnswer, DigestQuery, Pull } from './log.js';
import { DeleteFolderOp, DeleteOp, PushAnswer, PutOp, RenameFolderOp, RenameOp } from './operations.js';
import { Refused2Ack } from './refusals.js';
import { requestShape, type RequestShape } from './requests.js';
import {
  Applied,
  CLIENT_EVENTS_2,
  Device,
  Done,
  Download,
  Downloaded,
  Handshake,
  Head,
  Missing,
  MissingAnswer,
  Presence,
  Present,
  Push,
  Ready,
  Resync,
  Revoked,
  SERVER_EVENTS_2,
  SetPresence,
  Upload,
} from './session.js';
import { either, type Fields, fixed, named, object, type ObjectShape, type Shape } from './shape.js';
import {
  Ack,
  CLIENT_EVENTS,
  CreatedFile,
  DeletedFile,
  FileCreated,
  FileDeleted,
  FileModified,
  FileRenamed,
  ModifiedFile,
  RenamedFile,
  SERVER_EVENTS,
} from './socket-events.js';

/** What a client may send: its payload, its ack, and what the key must be permitted. */
export interface ClientEvent {
  readonly event: string;
  readonly protocol: 1 | 2;
  readonly needs: Permission;
  /** Keys of single folders may not send it. */
  readonly isOfWholeStore?: true;
  readonly summary: string;
  /** Null: it has none. */
  readonly payload: RequestShape | null;
  readonly ack: Shape<unknown>;
}

/** What the gateway sends by itself. Keys without read permission get those only that say so. */
export interface ServerEvent {
  readonly event: string;
  readonly protocol: 1 | 2;
  readonly summary: string;
  readonly payload: Shape<unknown>;
  /** Also keys that may not read get it. */
  readonly isForAll?: true;
}

/** `push` and `POST ops`: the operations in it are read one by one. */
export const pushShape = requestShape(Push, {
  ops: named(
    'PushOp',
    either(...[PutOp, DeleteOp, RenameOp, DeleteFolderOp, RenameFolderOp].map((op) => requestShape(op))),
  ),
});

/** `auth` of the handshake of protocol 2, in which the key is too. */
export const handshakeShape = requestShape(Handshake, { device: requestShape(Device), cursor: requestShape(Cursor) });

type Told = Omit<ClientEvent, 'event' | 'protocol' | 'ack'> & { answer: ObjectShape<Fields> };

const OF_1: Readonly<Record<keyof typeof CLIENT_EVENTS, Pick<ClientEvent, 'summary' | 'payload'>>> = {
  created: { summary: 'Makes an empty file; one that is there is left as it is.', payload: requestShape(CreatedFile) },
  modified: {
    summary: 'Writes the whole content, and makes the file when there is none.',
    payload: requestShape(ModifiedFile),
  },
  deleted: { summary: 'Deletes the file; a missing one is no fault.', payload: requestShape(DeletedFile) },
  renamed: {
    summary: 'Moves the file; a missing source makes an empty file at the target, if that is free.',
    payload: requestShape(RenamedFile),
  },
};

const OF_2: Readonly<Record<keyof typeof CLIENT_EVENTS_2, Told>> = {
  pull: { needs: 'read', summary: 'The changes after a cursor.', payload: requestShape(Pull), answer: Changes },
  push: {
    needs: 'write',
    summary: 'Carries out operations in their order, each alone: a refusal is a result.',
    payload: pushShape,
    answer: PushAnswer,
  },
  digest: {
    needs: 'read',
    summary: 'What the store, or a folder of it, comes to.',
    payload: requestShape(DigestQuery),
    answer: DigestAnswer,
  },
  missing: {
    needs: 'write',
    summary: 'Which of these parts or files the store does not have yet.',
    payload: requestShape(Missing),
    answer: MissingAnswer,
  },
  upload: { needs: 'write', summary: 'Takes one part.', payload: requestShape(Upload), answer: Done },
  download: {
    needs: 'read',
    summary: 'A piece of the bytes of a file.',
    payload: requestShape(Download),
    answer: Downloaded,
  },
  ack: {
    needs: 'read',
    summary: 'The client has applied everything up to a position.',
    payload: requestShape(Applied),
    answer: Done,
  },
  setPresence: {
    needs: 'read',
    isOfWholeStore: true,
    summary: 'What the others may see of this device.',
    payload: requestShape(SetPresence),
    answer: Done,
  },
  listPresence: {
    needs: 'read',
    isOfWholeStore: true,
    summary: 'What the others let be seen.',
    payload: null,
    answer: Present,
  },
};

const SENT_1: Readonly<Record<keyof typeof SERVER_EVENTS, Omit<ServerEvent, 'event' | 'protocol'>>> = {
  created: { summary: 'A file was made.', payload: FileCreated },
  modified: { summary: 'A file was written.', payload: FileModified },
  deleted: { summary: 'A file was deleted.', payload: FileDeleted },
  renamed: { summary: 'A file was moved.', payload: FileRenamed },
};

const SENT_2: Readonly<Record<keyof typeof SERVER_EVENTS_2, Omit<ServerEvent, 'event' | 'protocol'>>> = {
  ready: { summary: 'Once for each connection, before anything else.', payload: Ready, isForAll: true },
  changes: { summary: 'A piece of the log without a gap.', payload: Changes },
  head: { summary: 'The store has moved: pull when ready.', payload: Head },
  resync: { summary: 'The cursor is void: read a snapshot.', payload: Resync },
  presence: { summary: 'A device shows itself, or is gone.', payload: Presence },
  revoked: { summary: 'The connection ends after it.', payload: Revoked, isForAll: true },
};

/** What a client may send, in both protocols. */
export const CLIENT_MESSAGES: readonly ClientEvent[] = [
  ...entries(CLIENT_EVENTS).map(([key, event]): ClientEvent => ({
    ...OF_1[key],
    event,
    protocol: 1,
    needs: 'write',
    ack: named('Ack', Ack),
  })),
  ...entries(CLIENT_EVENTS_2).map(([key, event]): ClientEvent => {
    const { answer, ...told } = OF_2[key];
    return { ...told, event, protocol: 2, ack: ackOf(answer) };
  }),
];

/** What the gateway sends by itself, in both protocols. */
export const SERVER_MESSAGES: readonly ServerEvent[] = [
  ...entries(SERVER_EVENTS).map(([key, event]): ServerEvent => ({ ...SENT_1[key], event, protocol: 1 })),
  ...entries(SERVER_EVENTS_2).map(([key, event]): ServerEvent => ({ ...SENT_2[key], event, protocol: 2 })),
];

/** The answer with `success` beside its fields, or the refusal. */
function ackOf({ name, fields }: ObjectShape<Fields>): Shape<unknown> {
  return named(`${name}Ack`, either(object(`${name}Success`, { success: fixed(true), ...fields }), Refused2Ack));
}

function entries<Names extends Readonly<Record<string, string>>>(names: Names): [keyof Names, string][] {
  return Object.entries(names) as [keyof Names, string][];
}
