import {
  Body,
  Controller,
  Delete,
  Get,
  Headers,
  HttpCode,
  Patch,
  Post,
  Put,
  Query,
  Res,
  UseGuards,
} from '@nestjs/common';
import type { FastifyReply } from 'fastify';
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
import { expectedByHeaders, isMet, type Preconditions, tagOf } from './preconditions.js';
import { type Protocol1Writer, Protocol1Writes } from './protocol1-writes.js';
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

  /**
   * One file with its content when only `path` is given; else a page, and `path` is a prefix. The ETag of a file is the hash
   * of its bytes, so it stays the same where a file is moved or written again as it was.
   */
  @Get()
  @Needs('read')
  async read(
    @Bearer() key: StoreKey,
    @Query() query: Record<string, unknown>,
    @Headers() headers: Preconditions,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<FileWithContent | FileList | undefined> {
    const wantsOne = Boolean(query['path']) && query['limit'] === undefined && query['offset'] === undefined;
    if (!wantsOne) {
      const wanted = parsePayload(ListQuery, query);
      return this.database.transaction(key.tenantId, (tx) => listFiles(tx, key, wanted));
    }
    const { path } = parsePayload(FileQuery, query);
    requirePath(key, path);
    const expected = expectedByHeaders({ 'if-none-match': headers['if-none-match'] });
    return this.database.transaction(key.tenantId, async (tx) => {
      const { view, contentHash, as } = await readFile(tx, key.storeId, path);
      void reply.headers({ etag: tagOf(contentHash), 'cache-control': 'private, no-cache' });
      if (isMet(expected, contentHash)) {
        return { ...view, content: carry(await this.contents.whole(tx, key.storeId, contentHash), as) };
      }
      void reply.status(304);
      return undefined;
    });
  }

  @Post()
  @Needs('write')
  async create(
    @Bearer() key: StoreKey,
    @Body() body: unknown,
    @Headers() headers: Preconditions,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<FileView> {
    const { path, content } = parsePayload(FileBody, body);
    return viewed(await this.writes.put(writerOf(key, headers), path, content, 'refuse'), reply);
  }

  @Put()
  @Needs('write')
  async store(
    @Bearer() key: StoreKey,
    @Body() body: unknown,
    @Headers() headers: Preconditions,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<FileView> {
    const { path, content } = parsePayload(FileBody, body);
    return viewed(await this.writes.put(writerOf(key, headers), path, content, 'overwrite'), reply);
  }

  @Patch()
  @Needs('write')
  async rename(
    @Bearer() key: StoreKey,
    @Body() body: unknown,
    @Headers() headers: Preconditions,
    @Res({ passthrough: true }) reply: FastifyReply,
  ): Promise<FileMoved> {
    const { path, newPath } = parsePayload(RenameBody, body);
    const outcome = await this.writes.rename(writerOf(key, headers), path, newPath);
    if (key.permissions.includes('read')) return viewed(outcome, reply);
    const { hash: _hash, size: _size, ...seen } = viewed(outcome);
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
  async delete(@Bearer() key: StoreKey, @Query() query: unknown, @Headers() headers: Preconditions): Promise<void> {
    await this.writes.delete(writerOf(key, headers), parsePayload(FileQuery, query).path);
  }
}

function writerOf(key: StoreKey, headers: Preconditions): Protocol1Writer {
  return { key, expected: expectedByHeaders(headers) };
}

/** @param reply is given the file's tag, for those who may know it */
function viewed({ file }: Outcome, reply?: FastifyReply): FileView {
  if (!file) throw syncError('INTERNAL_ERROR', 'The file is not there after it was written.');
  void reply?.header('etag', tagOf(file.hash!));
  return viewOfFile(file);
}
