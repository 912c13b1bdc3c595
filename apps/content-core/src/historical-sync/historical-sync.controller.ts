import { Controller, Get, HttpCode, Inject, Param, Post, Req } from '@nestjs/common';
import type { MultipartFile } from '@fastify/multipart';
import type { FastifyRequest } from 'fastify';
import { requireUse } from '@atomo-cc/access';
import { apiError, isUuid } from '@atomo-cc/kernel';
import { findSyncJob, type SyncJob } from '@atomo-cc/sync-jobs';
import { principalOf } from '../auth/index.js';
import { Imports } from './imports.js';

/** The REST side of historical syncs: uploading an archive and looking at its job. */
@Controller('api')
export class HistoricalSyncController {
  constructor(@Inject(Imports) private readonly imports: Imports) {}

  /** Takes one file, of any size, in the multipart field `file`; stores it and starts the job that reads it. */
  @Post('imports')
  @HttpCode(202)
  async upload(@Req() request: FastifyRequest): Promise<{ jobId: string; importId: string }> {
    const principal = principalOf(request);
    const { tenantId } = principal;
    try {
      requireUse(principal, 'startHistoricalSync');
      const file = await fileOf(request);
      const blob = await this.imports.store(tenantId, file.filename, file.file);
      const job = await this.imports.start(tenantId, blob.id);
      return { jobId: job.id, importId: blob.id };
    } catch (error) {
      // The rest of a refused upload is read and dropped: many clients read no answer before they have sent everything, and
      // a connection stuck in the middle of a request would hold up the service's stop.
      request.raw.unpipe();
      request.raw.resume();
      throw error;
    }
  }

  @Get('historical-sync/:id')
  async job(
    @Req() request: FastifyRequest,
    @Param('id') id: string,
  ): Promise<Omit<SyncJob, 'tenantId' | 'checkpoint'>> {
    const principal = principalOf(request);
    requireUse(principal, 'historicalSyncJob');
    const { tenantId } = principal;
    const job = isUuid(id) ? await this.imports.database.transaction(tenantId, (tx) => findSyncJob(tx, id)) : null;
    if (!job) throw apiError('NOT_FOUND', 'There is no such job.');
    const { tenantId: _tenant, checkpoint: _checkpoint, ...shown } = job;
    return shown;
  }
}

async function fileOf(request: FastifyRequest): Promise<MultipartFile> {
  const file = request.isMultipart() ? await request.file() : undefined;
  if (!file) throw apiError('VALIDATION_ERROR', 'Send the archive as multipart/form-data in the field "file".');
  return file;
}
