import { Readable } from 'node:stream';
import { Controller, Get, Inject, Param, Req, Res } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { requireUse } from '@atomo-cc/access';
import { principalOf } from '../auth/index.js';
import { SubjectExport } from './subject-export.js';

/**
 * The REST side of what is kept about a person: a file to be handed over. By GraphQL it could not be written while it is read, and the
 * mail of years would have to be held in memory, here and there.
 */
@Controller('api/subjects')
export class SubjectsController {
  constructor(@Inject(SubjectExport) private readonly exports: SubjectExport) {}

  @Get(':model/:id/export')
  async export(
    @Req() request: FastifyRequest,
    @Res() reply: FastifyReply,
    @Param('model') model: string,
    @Param('id') id: string,
  ): Promise<void> {
    const principal = principalOf(request);
    requireUse(principal, 'exportSubject');
    const by = { actor: principal.actor, address: request.ip, requestId: request.id };
    const subject = await this.exports.begin(principal, model, id, by);
    await reply
      .headers({
        'content-disposition': `attachment; filename="${subject.model.name}-${subject.id}.json"`,
        'cache-control': 'no-store',
      })
      .type('application/json; charset=utf-8')
      .send(Readable.from(this.exports.write(principal, subject)));
  }
}
