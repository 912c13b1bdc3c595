import type { Permission } from './keys.js';
import {
  Changes,
  ChangesQuery,
  Conflicts,
  DigestAnswer,
  DigestQuery,
  PageQuery,
  RestoreBody,
  SnapshotLine,
  SnapshotQuery,
  Trash,
  Versions,
} from './log.js';
import { OpResult, PushAnswer } from './operations.js';
import { queryShape, requestShape, type RequestShape } from './requests.js';
import {
  AuditPage,
  AuditQuery,
  CreateKeyBody,
  CreateStoreBody,
  Deleted,
  DeletedSettings,
  DeviceList,
  FileBody,
  FileList,
  FileMoved,
  FileView,
  FileWithContent,
  HealthView,
  KeyChangeQuery,
  KeyList,
  KeyView,
  ListQuery,
  FileQuery,
  RenameBody,
  REST_BASE,
  RotateKeyBody,
  SettingList,
  SettingQuery,
  SettingView,
  SettingWithContent,
  StoreList,
  StoreView,
  TenantQuery,
} from './rest.js';
import { Missing, MissingAnswer, Ready, REST_BASE_2 } from './session.js';
import { either, type Shape, shape } from './shape.js';
import { pushShape } from './events.js';

/** What a body is that is no JSON: bytes as they are. */
export const BYTES = 'bytes';
/** What a body is that is no JSON: lines of text. */
export const TEXT = 'text';

/** What a body is of which each line is a JSON value of its own. */
export interface Lines {
  readonly lines: Shape<unknown>;
}

/** One route of the gateway: what it takes, what it gives and to whom. */
export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** With its parameters in braces. */
  readonly path: string;
  /** Whose codes its refusals have; null: it has none. */
  readonly protocol: 1 | 2 | null;
  /** What a store's key must be permitted (nothing of it: every key); `master`: the master key alone; `no key`: none. */
  readonly needs: readonly Permission[] | 'master' | 'no key';
  readonly summary: string;
  readonly query?: RequestShape;
  readonly body?: RequestShape | typeof BYTES;
  /** A body need not come. */
  readonly isBodyOptional?: true;
  /** Headers that it reads besides the key. */
  readonly headers?: readonly string[];
  /** What it answers by status when it does as it was asked; null: without a body. */
  readonly answers: Readonly<Record<number, Shape<unknown> | Lines | typeof BYTES | typeof TEXT | null>>;
}

const v1 = (route: Omit<Route, 'protocol'>): Route => ({ ...route, path: `/${REST_BASE}${route.path}`, protocol: 1 });
const admin = (route: Omit<Route, 'protocol' | 'needs'>): Route =>
  v1({ query: tenant, ...route, path: `/admin/stores${route.path}`, needs: 'master' });
const v2 = (route: Omit<Route, 'protocol'>): Route => ({ ...route, path: `/${REST_BASE_2}${route.path}`, protocol: 2 });

const open = (path: string, summary: string, answers: Route['answers']): Route => ({
  method: 'GET',
  path,
  protocol: null,
  needs: 'no key',
  summary,
  answers,
});

const anObject = shape<object>({ type: 'object' });
const tenant = queryShape(TenantQuery);
const keyChange = queryShape(KeyChangeQuery);
const page = queryShape(PageQuery);
const DEVICE = ['x-device-id'];
/** Headers with which a write says what it expects, by the ETag of the file; 412 when it is not so. */
const CONDITIONS = ['if-match', 'if-none-match'];

/** Every route of the gateway, in the order in which the documents tell of them. */
export const ROUTES: readonly Route[] = [
  v1({
    method: 'GET',
    path: '/files',
    needs: ['read'],
    summary: 'One file with its content when only `path` is given; else a page of files, of which `path` is a prefix.',
    query: queryShape(ListQuery),
    headers: ['if-none-match'],
    answers: { 200: either(FileWithContent, FileList), 304: null },
  }),
  v1({
    method: 'POST',
    path: '/files',
    needs: ['write'],
    summary: 'Makes a file. CONFLICT when there is one.',
    headers: CONDITIONS,
    body: requestShape(FileBody),
    answers: { 201: FileView },
  }),
  v1({
    method: 'PUT',
    path: '/files',
    needs: ['write'],
    summary: 'Writes a file whole, and makes it when there is none.',
    headers: CONDITIONS,
    body: requestShape(FileBody),
    answers: { 200: FileView },
  }),
  v1({
    method: 'PATCH',
    path: '/files',
    needs: ['write'],
    summary: 'Moves a file. CONFLICT when there is one at the target.',
    headers: CONDITIONS,
    body: requestShape(RenameBody),
    answers: { 200: FileMoved },
  }),
  v1({
    method: 'DELETE',
    path: '/files',
    needs: ['write'],
    summary: 'Deletes a file; a missing one is no fault.',
    headers: CONDITIONS,
    query: queryShape(FileQuery),
    answers: { 204: null },
  }),
  v1({
    method: 'DELETE',
    path: '/files/all',
    needs: ['write'],
    summary: 'Deletes all files that the key covers.',
    answers: { 200: Deleted },
  }),
  v1({
    method: 'GET',
    path: '/settings',
    needs: ['read'],
    summary: 'One setting with its content when `path` is given; else all of them without.',
    query: queryShape(SettingQuery),
    answers: { 200: either(SettingWithContent, SettingList) },
  }),
  v1({
    method: 'PUT',
    path: '/settings',
    needs: ['write'],
    summary: 'Writes a setting, whatever was there. Settings are no files: nobody is told.',
    body: requestShape(FileBody),
    answers: { 200: SettingView },
  }),
  v1({
    method: 'DELETE',
    path: '/settings',
    needs: ['write'],
    summary: 'Deletes a setting; a missing one is no fault.',
    query: queryShape(FileQuery),
    answers: { 204: null },
  }),
  v1({
    method: 'DELETE',
    path: '/settings/all',
    needs: ['write'],
    summary: 'Deletes all settings that the key covers.',
    answers: { 200: DeletedSettings },
  }),
  admin({ method: 'GET', path: '', summary: 'The stores of the tenant.', answers: { 200: StoreList } }),
  admin({
    method: 'POST',
    path: '',
    summary: 'Makes a store.',
    body: requestShape(CreateStoreBody),
    answers: { 201: StoreView },
  }),
  admin({ method: 'GET', path: '/{storeId}', summary: 'One store.', answers: { 200: StoreView } }),
  admin({
    method: 'DELETE',
    path: '/{storeId}',
    summary: 'Deletes a store with its files and keys, and ends their sockets.',
    query: keyChange,
    answers: { 204: null },
  }),
  admin({ method: 'GET', path: '/{storeId}/keys', summary: 'The keys of a store.', answers: { 200: KeyList } }),
  admin({
    method: 'POST',
    path: '/{storeId}/keys',
    summary: 'Makes a key, and shows it this once.',
    query: keyChange,
    body: requestShape(CreateKeyBody),
    answers: { 201: KeyView },
  }),
  admin({ method: 'GET', path: '/{storeId}/keys/{keyId}', summary: 'One key.', answers: { 200: KeyView } }),
  admin({
    method: 'DELETE',
    path: '/{storeId}/keys/{keyId}',
    summary: 'Revokes a key: here at once, on other nodes within 5 s.',
    query: keyChange,
    answers: { 204: null },
  }),
  admin({
    method: 'POST',
    path: '/{storeId}/keys/{keyId}/rotate',
    summary: 'Makes a key that may do what this one may, which ends after the overlap.',
    query: keyChange,
    body: requestShape(RotateKeyBody),
    isBodyOptional: true,
    answers: { 201: KeyView },
  }),
  v1({
    method: 'GET',
    path: '/admin/stores/{storeId}/audit',
    needs: 'master',
    summary: 'Who changed what, when and from which device, newest first, as far as the log goes back.',
    query: queryShape(AuditQuery),
    answers: { 200: AuditPage },
  }),
  admin({
    method: 'GET',
    path: '/{storeId}/devices',
    summary: 'The devices that connected by protocol 2.',
    answers: { 200: DeviceList },
  }),
  v2({
    method: 'GET',
    path: '/session',
    needs: [],
    summary: 'What `ready` tells a socket.',
    answers: { 200: Ready },
  }),
  v2({
    method: 'GET',
    path: '/changes',
    needs: ['read'],
    summary: 'The changes after a cursor; when there are none, waits for one as long as asked for.',
    query: queryShape(ChangesQuery),
    answers: { 200: Changes },
  }),
  v2({
    method: 'GET',
    path: '/snapshot',
    needs: ['read'],
    summary: 'The live files, one a line, between a line that says where the store stands and one that says it is all.',
    query: queryShape(SnapshotQuery),
    answers: { 200: { lines: SnapshotLine } },
  }),
  v2({
    method: 'GET',
    path: '/digest',
    needs: ['read'],
    summary: 'What the store, or a folder of it, comes to.',
    query: queryShape(DigestQuery),
    answers: { 200: DigestAnswer },
  }),
  v2({
    method: 'POST',
    path: '/ops',
    needs: ['write'],
    summary: 'Carries out operations in their order, each alone: a refusal is a result.',
    headers: DEVICE,
    body: pushShape,
    answers: { 200: PushAnswer },
  }),
  v2({
    method: 'POST',
    path: '/blobs/missing',
    needs: ['write'],
    summary: 'Which of these parts or files the store does not have yet.',
    body: requestShape(Missing),
    answers: { 200: MissingAnswer },
  }),
  v2({
    method: 'PUT',
    path: '/blobs/{hash}',
    needs: ['write'],
    summary: 'Takes one part; HASH_MISMATCH when the bytes are others.',
    body: BYTES,
    answers: { 204: null },
  }),
  v2({
    method: 'GET',
    path: '/blobs/{hash}',
    needs: ['read'],
    summary: 'The bytes of a file, or one range of them.',
    headers: ['range', 'if-none-match'],
    answers: { 200: BYTES, 206: BYTES, 304: null, 416: null },
  }),
  v2({
    method: 'GET',
    path: '/files/{fileId}/versions',
    needs: ['read'],
    summary: 'The history of a file, newest first.',
    query: page,
    answers: { 200: Versions },
  }),
  v2({
    method: 'POST',
    path: '/files/{fileId}/restore',
    needs: ['read', 'write'],
    summary: 'Brings a version of a file back, as an operation like any other.',
    headers: DEVICE,
    body: requestShape(RestoreBody),
    answers: { 200: OpResult },
  }),
  v2({
    method: 'GET',
    path: '/trash',
    needs: ['read'],
    summary: 'The deleted files whose bytes can be restored, newest first.',
    query: page,
    answers: { 200: Trash },
  }),
  v2({
    method: 'GET',
    path: '/conflicts',
    needs: ['read'],
    summary: 'The conflict copies that wait to be settled, newest first.',
    query: page,
    answers: { 200: Conflicts },
  }),
  open('/health', 'Whether the gateway works, as protocol 1 has it.', { 200: HealthView, 503: HealthView }),
  open('/health/live', 'Whether the process answers.', { 200: anObject }),
  open('/health/ready', 'Whether it can do its work, and the state of each thing it needs.', {
    200: anObject,
    503: anObject,
  }),
  open('/metrics', 'What it counts and measures, for Prometheus.', { 200: TEXT }),
  open('/api/openapi.json', 'The routes of the gateway: this document.', { 200: anObject }),
  open('/api/asyncapi.json', 'The socket events of the gateway.', { 200: anObject }),
];
