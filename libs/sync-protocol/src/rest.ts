import {
  ArrayMaxSize,
  ArrayNotEmpty,
  ArrayUnique,
  IsArray,
  IsIn,
  IsInt,
  IsISO8601,
  IsOptional,
  IsUUID,
  Length,
  Matches,
  Max,
  Min,
} from 'class-validator';
import { PERMISSIONS, type Permission } from './keys.js';
import { HASH } from './hashes.js';
import { PATH, type SyncPath } from './paths.js';
import { IsContent, IsIntText, IsStorableText, IsSyncPath } from './payload.js';
import {
  about,
  flag,
  instant,
  listOf,
  nullable,
  object,
  type Of,
  oneOf,
  optional,
  shape,
  text,
  uuid,
  whole,
} from './shape.js';

/** The base of every route of protocol 1. */
export const REST_BASE = 'api/v1';
/** The header that carries a store's key or the master key. */
export const KEY_HEADER = 'x-api-key';
/** The longest page of a file list. */
export const LIST_LIMIT = 1_000;
/** The page of a file list when the client names none. */
export const LIST_DEFAULT = 100;
/** The longest name of a store or key. */
const NAME_LIMIT = 255;
/** The longest reason for a change. */
const REASON_LIMIT = 500;
/** Folders that one key may be confined to; each is compared with every change. */
const FOLDERS_OF_A_KEY = 32;
/** The longest that two keys hold side by side: a quarter of a year. */
const LONGEST_OVERLAP_SECONDS = 90 * 86_400;

/** The body of POST and PUT /files. */
export class FileBody {
  @IsSyncPath() path!: SyncPath;
  @IsContent() content!: string;
}

/** The body of PATCH /files. */
export class RenameBody {
  @IsSyncPath() path!: SyncPath;
  @IsSyncPath() newPath!: SyncPath;
}

/** The query of GET and DELETE /files for one file. */
export class FileQuery {
  @IsSyncPath() path!: SyncPath;
}

/** The query of GET /settings; without a path, all of them. */
export class SettingQuery {
  @IsOptional() @IsSyncPath() path?: SyncPath;
}

const FLAG = /^(?:true|false|1|0)$/;

/** The query of GET /files for a list; query strings, so numbers and flags are still text. `path` is a prefix. */
export class ListQuery {
  @IsOptional() @IsStorableText() path?: string;
  @IsOptional()
  @Matches(/^(?:[1-9]\d{0,2}|1000)$/, { message: 'limit must be a whole number from 1 to 1000' })
  limit?: string;
  @IsOptional() @Matches(/^\d{1,9}$/, { message: 'offset must be a whole number from 0 on' }) offset?: string;
  @IsOptional() @Matches(FLAG, { message: 'include_deleted must be true or false' }) include_deleted?: string;
  @IsOptional() @IsStorableText() extension?: string;
  @IsOptional() @IsStorableText() content_contains?: string;
  @IsOptional() @IsStorableText() path_contains?: string;
  @IsOptional() @Matches(FLAG, { message: 'is_binary must be true or false' }) is_binary?: string;
}

/** The query of every admin route: the master key acts on the default tenant unless this names another. */
export class TenantQuery {
  @IsOptional() @IsUUID() tenantId?: string;
}

/** The query of the admin routes that issue or end a key. */
export class KeyChangeQuery extends TenantQuery {
  /** Why, for the log of the tenant. */
  @IsOptional()
  @Length(1, REASON_LIMIT)
  @Matches(/^\P{C}*$/u, { message: 'reason may not contain control characters' })
  reason?: string;
}

/** The body of POST /admin/stores. */
export class CreateStoreBody {
  @IsStorableText() @Length(1, NAME_LIMIT) name!: string;
  @IsOptional() @IsUUID() tenantId?: string;
  /** Bytes of live files that the store may hold; left out: what the gateway is set to. */
  @IsOptional() @IsInt() @Min(1) @Max(Number.MAX_SAFE_INTEGER) quotaBytes?: number;
}

/** The body of POST /admin/stores/:storeId/keys. */
export class CreateKeyBody {
  @IsStorableText() @Length(1, NAME_LIMIT) name!: string;
  @IsArray() @ArrayNotEmpty() @ArrayUnique() @IsIn(PERMISSIONS, { each: true }) permissions!: Permission[];
  /** Folders that the key sees and writes; left out or empty: the whole store. */
  @IsOptional() @IsSyncPath({ each: true }) @ArrayMaxSize(FOLDERS_OF_A_KEY) @IsArray() prefixes?: SyncPath[];
  /** When the key ends by itself, ISO 8601. */
  @IsOptional() @IsISO8601({ strict: true }) expiresAt?: string;
}

/** The body of POST /admin/stores/:storeId/keys/:keyId/rotate. */
export class RotateKeyBody {
  /** How long the old key goes on; left out, it ends at once. */
  @IsOptional() @IsInt() @Min(0) @Max(LONGEST_OVERLAP_SECONDS) overlapSeconds?: number;
}

/** The hash of protocol 1. */
export const carriedHash = () =>
  shape<string>(
    { type: 'string', pattern: '^sha256:[0-9a-f]{64}$' },
    'SHA-256 of the content as it is carried: of binary files, of the base64 text.',
  );

/** A file without its content, as lists and the answers to writes show it. */
export const FileView = object('FileView', {
  path: text(),
  hash: carriedHash(),
  size: whole('Bytes of the content in UTF-8.'),
  isBinary: flag(),
  extension: nullable(text()),
  createdAt: instant(),
  updatedAt: instant(),
  seq: whole('The position of the last change in the log.'),
  expiresAt: optional(instant('Only on a deleted file: when its tombstone is forgotten.')),
});
/** A file without its content. */
export type FileView = Of<typeof FileView>;

/** A file that was moved; who may not read is not told what is in it. */
export const FileMoved = object('FileMoved', {
  ...FileView.fields,
  hash: optional(FileView.fields.hash),
  size: optional(FileView.fields.size),
});
/** A file that was moved. */
export type FileMoved = Of<typeof FileMoved>;

/** One file with its content. */
export const FileWithContent = object('FileWithContent', {
  ...FileView.fields,
  content: text('Of binary files base64.'),
});
/** One file with its content. */
export type FileWithContent = Of<typeof FileWithContent>;

/** A page of files. `total` and the page are of one moment; `offset` counts in order of the path's code points. */
export const FileList = object('FileList', {
  files: listOf(FileView),
  total: whole(),
  limit: whole(),
  offset: whole(),
});
/** A page of files. */
export type FileList = Of<typeof FileList>;

/** A setting: a file of the plugin's own folder, relative to that. */
export const SettingView = object('SettingView', {
  path: text(),
  hash: carriedHash(),
  size: whole('Bytes of the content in UTF-8.'),
  isBinary: flag(),
  extension: nullable(text()),
  createdAt: instant(),
  updatedAt: instant(),
});
/** A setting without its content. */
export type SettingView = Of<typeof SettingView>;
/** One setting with its content. */
export const SettingWithContent = object('SettingWithContent', { ...SettingView.fields, content: text() });
/** One setting with its content. */
export type SettingWithContent = Of<typeof SettingWithContent>;
/** All settings of a store. */
export const SettingList = object('SettingList', { settings: listOf(SettingView), total: whole() });
/** All settings of a store. */
export type SettingList = Of<typeof SettingList>;
/** What DELETE /settings/all answers. */
export const DeletedSettings = object('DeletedSettings', { deleted: whole('Settings.') });

/** What DELETE /files/all answers. */
export const Deleted = object('Deleted', { deleted: whole('Files.'), seq: whole() });

/** A store. */
export const StoreView = object('StoreView', {
  id: uuid(),
  name: text(),
  createdAt: instant(),
  updatedAt: instant(),
  fileCount: whole('Live files.'),
  totalSize: whole('Bytes of live files.'),
});
/** A store. */
export type StoreView = Of<typeof StoreView>;
/** All stores of a tenant. */
export const StoreList = object('StoreList', { stores: listOf(StoreView) });

/** A key of a store. */
export const KeyView = object('KeyView', {
  id: uuid(),
  name: text(),
  permissions: listOf(oneOf(PERMISSIONS)),
  prefix: text('The beginning of the key, to tell keys apart by.'),
  prefixes: listOf(text(), 'The folders that the key is confined to; empty: the whole store.'),
  expiresAt: nullable(instant('When it ends by itself; null: never.')),
  createdAt: instant(),
  lastUsedAt: nullable(instant()),
  key: optional(text('The key itself, shown once: in the answer that makes it.')),
});
/** A key of a store. */
export type KeyView = Of<typeof KeyView>;
/** The keys of a store that are not revoked. */
export const KeyList = object('KeyList', { keys: listOf(KeyView) });

/** The query of GET /admin/stores/:storeId/audit: newest first; `before` is `next` of the page before. */
export class AuditQuery extends TenantQuery {
  /** Changes at this path, or away from it. */
  @IsOptional() @IsSyncPath() path?: SyncPath;
  /** The id of a key. */
  @IsOptional() @IsUUID() keyId?: string;
  /** The id of a device. */
  @IsOptional() @IsStorableText() @Length(1, 64) device?: string;
  @IsOptional() @IsIntText() limit?: string;
  @IsOptional() @IsIntText() before?: string;
}

/** Who changed what. Names are those of now; a key keeps its name when it ends. */
export const AuditEntry = object('AuditEntry', {
  seq: whole('The position of the change.'),
  at: instant(),
  op: oneOf(['create', 'modify', 'delete', 'rename']),
  fileId: uuid('Stays the same over renames.'),
  path: PATH,
  oldPath: optional(about(PATH, 'Of a rename.')),
  hash: about(nullable(HASH), 'What the file has since; null after a deletion.'),
  oldHash: about(nullable(HASH), 'What it had before; null when it was made.'),
  size: whole('Bytes after the change.'),
  key: object('AuditKey', {
    id: uuid(),
    name: nullable(text('Null: the key is not known any more.')),
    prefix: nullable(text('The beginning of the key.')),
  }),
  device: nullable(
    object('AuditDevice', {
      id: text('As the device named itself.'),
      name: nullable(text('Null: it never said, or connected by REST alone.')),
    }),
  ),
  opId: optional(uuid('The operation of protocol 2.')),
});
/** Who changed what. */
export type AuditEntry = Of<typeof AuditEntry>;

/** A page of the audit, newest first. */
export const AuditPage = object('AuditPage', {
  entries: listOf(AuditEntry),
  next: nullable(whole('Send it as `before` for the next page; null: this was the last.')),
});
/** A page of the audit. */
export type AuditPage = Of<typeof AuditPage>;

/** A device that connected to the store by protocol 2, as it described itself. */
export const DeviceView = object('DeviceView', {
  id: text(),
  name: nullable(text()),
  platform: nullable(text()),
  app: nullable(text()),
  keyId: uuid('The key that it used last.'),
  firstSeenAt: instant(),
  lastSeenAt: instant('When it last connected, true to some minutes.'),
  applied: about(
    nullable(object('DeviceProgress', { through: whole(), at: instant() })),
    'It has all that the store had at position `through`, and said so at that time; null: it says nothing, or of a log that ended.',
  ),
});
/** A device of the store. */
export type DeviceView = Of<typeof DeviceView>;
/** The devices of a store, the last seen first. */
export const DeviceList = object('DeviceList', {
  head: whole('The position of the last change.'),
  devices: listOf(DeviceView),
});
/** The devices of a store. */
export type DeviceList = Of<typeof DeviceList>;

/** What GET /health answers. */
export const HealthView = object('HealthView', {
  status: oneOf(['healthy', 'degraded']),
  version: text(),
  uptime: whole('Seconds.'),
  database: oneOf(['connected', 'disconnected']),
});

/** True for `true` and `1` of a query string. */
export function isSet(flag: string | undefined): boolean {
  return flag === 'true' || flag === '1';
}
