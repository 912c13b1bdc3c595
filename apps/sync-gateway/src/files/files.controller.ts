import { Body, Controller, Delete, Get, HttpCode, Patch, Post, Put, Query, UseGuards } from '@nestjs/common';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  FileBody,
  type FileList,
  FileQuery,
  type FileView,
  type FileWithContent,
  ListQuery,
  parsePayload,
  RenameBody,
  REST_BASE,
  syncPath,
} from '@atomo-cc/sync-protocol';
import { Bearer, Needs, type StoreKey, StoreKeyGuard } from '../credentials/index.js';
import { type Change, put } from './changes.js';
import { listFiles, readFile } from './file-rows.js';
import { FileWrites } from './file-writes.js';

/** The files of the key's store. Unlike a socket, whoever writes here hears of it on their own sockets too. */
@Controller(`${REST_BASE}/files`)
@UseGuards(StoreKeyGuard)
export class FilesController {
  constructor(
    private readonly database: AppDatabase,
    private readonly writes: FileWrites,
  ) {}

  /** One file with its content when only `path` is given; else a page, and `path` is a prefix. */
  @Get()
  @Needs('read')
  async read(@Bearer() key: StoreKey, @Query() query: Record<string, unknown>): Promise<FileWithContent | FileList> {
    const wantsOne = Boolean(query['path']) && query['limit'] === undefined && query['offset'] === undefined;
    if (!wantsOne) {
      const wanted = parsePayload(ListQuery, query);
      return this.database.transaction(key.tenantId, (tx) => listFiles(tx, key.storeId, wanted));
    }
    const path = syncPath(parsePayload(FileQuery, query).path);
    return this.database.transaction(key.tenantId, (tx) => readFile(tx, key.storeId, path));
  }

  @Post()
  @Needs('write')
  async create(@Bearer() key: StoreKey, @Body() body: unknown): Promise<FileView> {
    const { path, content } = parsePayload(FileBody, body);
    return this.write(key, put(syncPath(path), content, 'refuse'));
  }

  @Put()
  @Needs('write')
  async store(@Bearer() key: StoreKey, @Body() body: unknown): Promise<FileView> {
    const { path, content } = parsePayload(FileBody, body);
    return this.write(key, put(syncPath(path), content, 'overwrite'));
  }

  @Patch()
  @Needs('write')
  async rename(@Bearer() key: StoreKey, @Body() body: unknown): Promise<FileView> {
    const { path, newPath } = parsePayload(RenameBody, body);
    return this.write(key, { kind: 'rename', from: syncPath(path), to: syncPath(newPath) });
  }

  @Delete('all')
  @Needs('write')
  async deleteAll(@Bearer() key: StoreKey): Promise<{ deleted: number; seq: number }> {
    const { broadcasts, seq } = await this.writes.write(key, { kind: 'delete-all' });
    return { deleted: broadcasts.length, seq };
  }

  @Delete()
  @Needs('write')
  @HttpCode(204)
  async delete(@Bearer() key: StoreKey, @Query() query: unknown): Promise<void> {
    await this.writes.write(key, { kind: 'delete', path: syncPath(parsePayload(FileQuery, query).path) });
  }

  private async write(key: StoreKey, change: Change): Promise<FileView> {
    const { file } = await this.writes.write(key, change);
    return file!;
  }
}
