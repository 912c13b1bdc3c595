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
import type { SyncPath } from './paths.js';
import { IsContent, IsStorableText, IsSyncPath } from './payload.js';

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

/** A file without its content, as lists and the answers to writes show it; times are ISO 8601. */
export interface FileView {
  readonly path: string;
  readonly hash: string;
  readonly size: number;
  readonly isBinary: boolean;
  readonly extension: string | null;
  readonly createdAt: string;
  readonly updatedAt: string;
  /** The position of the file's last change in the store's log. */
  readonly seq: number;
  /** Only on a deleted file: when its tombstone is forgotten. */
  readonly expiresAt?: string;
}

/** One file with its content. */
export type FileWithContent = FileView & { readonly content: string };

/** A page of files. `total` and the page are of one moment; `offset` counts in order of the path's code points. */
export interface FileList {
  readonly files: readonly FileView[];
  readonly total: number;
  readonly limit: number;
  readonly offset: number;
}

/** A store; `fileCount` and `totalSize` (bytes) count live files. */
export interface StoreView {
  readonly id: string;
  readonly name: string;
  readonly createdAt: string;
  readonly updatedAt: string;
  readonly fileCount: number;
  readonly totalSize: number;
}

/** A key of a store; `key` itself is shown once, in the answer that creates it. */
export interface KeyView {
  readonly id: string;
  readonly name: string;
  readonly permissions: readonly Permission[];
  readonly prefix: string;
  /** The folders that the key is confined to; empty: the whole store. */
  readonly prefixes: readonly string[];
  /** When it ends by itself; null: never. */
  readonly expiresAt: string | null;
  readonly createdAt: string;
  readonly lastUsedAt: string | null;
  readonly key?: string;
}

/** True for `true` and `1` of a query string. */
export function isSet(flag: string | undefined): boolean {
  return flag === 'true' || flag === '1';
}
