import { Body, Controller, Delete, Get, HttpCode, Patch, Post, Put, Query, UseGuards } from '@nestjs/common';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  FileBody,
  type FileList,
  type FileMoved,
  FileQuery,
  type FileView,
  type FileWithContent,
  ListQuery,
  parsePayload,
  RenameBody,
  REST_BASE,
  syncError,
} from '@atomo-cc/sync-protocol';
import { carry, Contents } from '../contents/index.js';
import { Bearer, Needs, requirePath, type StoreKey, StoreKeyGuard } from '../credentials/index.js';
import { listFiles, readFile, viewOfFile } from './file-rows.js';
import { Protocol1Writes } from './protocol1-writes.js';
import type { Outcome } from './workspace.js';

/** The files of the key's store. Unlike a socket, whoever writes here hears of it on their own sockets too. */
@Controller(`${REST_BASE}/files`)
@UseGuards(StoreKeyGuard)
export class FilesController {
  constructor(
    private readonly database: AppDatabase,
    private readonly contents: Contents,
    private readonly writes: Protocol1Writes,
  ) {}

  /** One file with its content when only `path` is given; else a page, and `path` is a prefix. */
  @Get()
  @Needs('read')
  async read(@Bearer() key: StoreKey, @Query() query: Record<string, unknown>): Promise<FileWithContent | FileList> {
    const wantsOne = Boolean(query['path']) && query['limit'] === undefined && query['offset'] === undefined;
    if (!wantsOne) {
      const wanted = parsePayload(ListQuery, query);
      return this.database.transaction(key.tenantId, (tx) => listFiles(tx, key, wanted));
    }
    const { path } = parsePayload(FileQuery, query);
    requirePath(key, path);
    return this.database.transaction(key.tenantId, async (tx) => {
      const { view, contentHash, as } = await readFile(tx, key.storeId, path);
      return { ...view, content: carry(await this.contents.whole(tx, key.storeId, contentHash), as) };
    });
  }

  @Post()
  @Needs('write')
  async create(@Bearer() key: StoreKey, @Body() body: unknown): Promise<FileView> {
    const { path, content } = parsePayload(FileBody, body);
    return viewed(await this.writes.put({ key }, path, content, 'refuse'));
  }

  @Put()
  @Needs('write')
  async store(@Bearer() key: StoreKey, @Body() body: unknown): Promise<FileView> {
    const { path, content } = parsePayload(FileBody, body);
    return viewed(await this.writes.put({ key }, path, content, 'overwrite'));
  }

  @Patch()
  @Needs('write')
  async rename(@Bearer() key: StoreKey, @Body() body: unknown): Promise<FileMoved> {
    const { path, newPath } = parsePayload(RenameBody, body);
    const view = viewed(await this.writes.rename({ key }, path, newPath));
    if (key.permissions.includes('read')) return view;
    const { hash: _hash, size: _size, ...seen } = view;
    return seen;
  }

  @Delete('all')
  @Needs('write')
  async deleteAll(@Bearer() key: StoreKey): Promise<{ deleted: number; seq: number }> {
    const { changes, seq } = await this.writes.deleteAll({ key });
    return { deleted: changes.length, seq };
  }

  @Delete()
  @Needs('write')
  @HttpCode(204)
  async delete(@Bearer() key: StoreKey, @Query() query: unknown): Promise<void> {
    await this.writes.delete({ key }, parsePayload(FileQuery, query).path);
  }
}

function viewed({ file }: Outcome): FileView {
  if (!file) throw syncError('INTERNAL_ERROR', 'The file is not there after it was written.');
  return viewOfFile(file);
}
