import { Readable } from 'node:stream';
import { Body, Controller, Get, Headers, HttpCode, Param, Post, Put, Query, Req, Res, UseGuards } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { isUuid } from '@atomo-cc/kernel';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import {
  type Changes,
  ChangesQuery,
  type Conflicts,
  type ContentHash,
  DEVICE_HEADER,
  type DigestAnswer,
  DigestQuery,
  isContentHash,
  Missing,
  type OpResult,
  PageQuery,
  pageSize,
  parsePayload,
  POLL_LIMIT_SECONDS,
  type Ready,
  REST_BASE_2,
  RestoreBody,
  SnapshotQuery,
  syncError,
  type Trash,
  type Versions,
} from '@atomo-cc/sync-protocol';
import { Bearer, Needs, type StoreKey, StoreKeyGuard } from '../credentials/index.js';
import { Feeds } from '../feeds/index.js';
import { expectedByHeaders, isMet, type Preconditions, tagOf } from '../files/index.js';
import { trash, versions } from '../log/index.js';
import { byteRange } from './byte-range.js';
import { streamOf } from './page-stream.js';
import { type Caller, Sync } from './sync.js';

/** A device's id, as the protocol bounds it. */
const DEVICE = /^[\x21-\x7e]{1,64}$/;

/** A reader of a stream who has taken nothing for so long is cut; the rest may be asked for anew. */
const STALLED_MS = 30_000;

/** Protocol 2 without a socket: for scripts, CI, and devices that only poll. Sees and decides what sockets do. */
@Controller(REST_BASE_2)
@UseGuards(StoreKeyGuard)
export class SyncController {
  constructor(
    private readonly sync: Sync,
    private readonly feeds: Feeds,
    private readonly database: AppDatabase,
  ) {}

  /** What `ready` tells a socket. */
  @Get('session')
  @Needs('any')
  async session(@Bearer() key: StoreKey): Promise<Ready> {
    return this.sync.ready(key);
  }

  /** The changes after a cursor; when there are none, waits for one as long as asked for. */
  @Get('changes')
  @Needs('read')
  async changes(@Bearer() key: StoreKey, @Query() query: unknown, @Req() request: FastifyRequest): Promise<Changes> {
    const { epoch, from, limit, wait } = parsePayload(ChangesQuery, query);
    const cursor = { epoch, from: Number(from) };
    const size = pageSize(limit);
    const ms = Math.min(Number(wait ?? 0), POLL_LIMIT_SECONDS) * 1000;
    // The feed is asked first: what is written after the first look wakes it.
    const feed = ms > 0 ? await this.feeds.open(key) : null;
    const found = await this.sync.pull(key, cursor, size);
    if (!feed || found.changes.length > 0 || found.more) return found;
    const gone = new AbortController();
    request.raw.once('close', () => gone.abort());
    await feed.beyond(found.through, ms, gone.signal);
    return this.sync.pull(key, cursor, size);
  }

  /** The live files as lines of JSON, at the pace of who reads them. */
  @Get('snapshot')
  @Needs('read')
  async snapshot(@Bearer() key: StoreKey, @Query() query: unknown, @Res() reply: FastifyReply): Promise<void> {
    const pages = this.sync.snapshot(key, parsePayload(SnapshotQuery, query));
    // What is refused is refused before anything is sent.
    const first = await pages.next();
    reply.raw.setTimeout(STALLED_MS, () => reply.raw.destroy());
    void reply.header('content-type', 'application/x-ndjson');
    await reply.send(streamOf(first, pages));
  }

  @Get('digest')
  @Needs('read')
  async digest(@Bearer() key: StoreKey, @Query() query: unknown): Promise<DigestAnswer> {
    return this.sync.digest(key, parsePayload(DigestQuery, query).prefix ?? undefined);
  }

  @Post('ops')
  @Needs('write')
  @HttpCode(200)
  async push(
    @Bearer() key: StoreKey,
    @Req() request: FastifyRequest,
    @Body() body: unknown,
  ): Promise<{ results: OpResult[] }> {
    return this.sync.push(key, callerOf(request), body);
  }

  @Post('blobs/missing')
  @Needs('write')
  @HttpCode(200)
  async missing(@Bearer() key: StoreKey, @Body() body: unknown): Promise<{ missing: ContentHash[] }> {
    return this.sync.missing(key, parsePayload(Missing, body).hashes);
  }

  /** Takes one part as the raw body. */
  @Put('blobs/:hash')
  @Needs('write')
  @HttpCode(204)
  async upload(@Bearer() key: StoreKey, @Param('hash') hash: string, @Body() body: unknown): Promise<void> {
    if (!Buffer.isBuffer(body)) {
      throw syncError('VALIDATION_ERROR', 'Send the bytes as they are, with content-type application/octet-stream.');
    }
    await this.sync.upload(key, hashOf(hash), body);
  }

  /** A file's bytes or a range of them (one; RFC 9110 §14.2). The ETag is the hash: what it names never changes. */
  @Get('blobs/:hash')
  @Needs('read')
  async download(
    @Bearer() key: StoreKey,
    @Param('hash') name: string,
    @Headers('range') range: string | undefined,
    @Headers() headers: Preconditions,
    @Res() reply: FastifyReply,
  ): Promise<void> {
    const hash = hashOf(name);
    const expected = expectedByHeaders({ 'if-none-match': headers['if-none-match'] });
    const size = await this.sync.sizeOf(key, hash);
    void reply.headers({
      etag: tagOf(hash),
      'accept-ranges': 'bytes',
      'cache-control': 'private, max-age=31536000, immutable',
      // Somebody else's bytes, on our origin: never a page, whatever is in them.
      'content-type': 'application/octet-stream',
      'content-disposition': 'attachment',
      'x-content-type-options': 'nosniff',
    });
    if (!isMet(expected, hash)) return void reply.status(304).send();
    const wanted = byteRange(range, size);
    if (wanted === 'unsatisfiable') {
      return void reply.status(416).header('content-range', `bytes */${size}`).send();
    }
    const { from, length } = wanted ?? { from: 0, length: size };
    if (wanted) void reply.status(206).header('content-range', `bytes ${from}-${from + length - 1}/${size}`);
    void reply.header('content-length', length);
    await reply.send(Readable.from(this.sync.read(key, hash, from, length)));
  }

  @Get('files/:fileId/versions')
  @Needs('read')
  async versions(@Bearer() key: StoreKey, @Param('fileId') fileId: string, @Query() query: unknown): Promise<Versions> {
    const { limit, before } = page(query);
    return this.database.transaction(key.tenantId, (tx) => versions(tx, key, uuid(fileId), limit, before));
  }

  @Post('files/:fileId/restore')
  @Needs('write')
  @HttpCode(200)
  async restore(
    @Bearer() key: StoreKey,
    @Param('fileId') fileId: string,
    @Req() request: FastifyRequest,
    @Body() body: unknown,
  ): Promise<OpResult> {
    const wanted = parsePayload(RestoreBody, body);
    return this.sync.restore(key, callerOf(request), uuid(fileId), wanted);
  }

  @Get('trash')
  @Needs('read')
  async trash(@Bearer() key: StoreKey, @Query() query: unknown): Promise<Trash> {
    const { limit, before } = page(query);
    return this.database.transaction(key.tenantId, (tx) => trash(tx, key, limit, before));
  }

  @Get('conflicts')
  @Needs('read')
  async conflicts(@Bearer() key: StoreKey, @Query() query: unknown): Promise<Conflicts> {
    const { limit, before } = page(query);
    return this.sync.conflicts(key, limit, before);
  }
}

function page(query: unknown): { limit: number; before: number | null } {
  const { limit, before } = parsePayload(PageQuery, query);
  return { limit: pageSize(limit), before: before == null ? null : Number(before) };
}

function uuid(id: string): string {
  const lower = id.toLowerCase();
  if (!isUuid(lower)) throw syncError('VALIDATION_ERROR', 'The file id in the address is not a UUID.');
  return lower;
}

function hashOf(name: string): ContentHash {
  if (!isContentHash(name))
    throw syncError('VALIDATION_ERROR', 'The address names no hash: sha256: and 64 hex digits.');
  return name;
}

function callerOf({ headers, ip, id }: FastifyRequest): Caller {
  const device = headers[DEVICE_HEADER];
  if (device !== undefined && (typeof device !== 'string' || !DEVICE.test(device))) {
    throw syncError('VALIDATION_ERROR', `${DEVICE_HEADER} must have 1 to 64 visible characters of ASCII.`);
  }
  return { device: device ?? null, from: { address: ip, requestId: id } };
}
