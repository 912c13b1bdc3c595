import { createHash } from 'node:crypto';
import { Controller, Get, Inject, Req, Res } from '@nestjs/common';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { describeSchema, type SchemaDefinition } from '@atomo-cc/schema';
import { principalOf } from './auth/index.js';

/** The token under which the service's schema is injected. */
export const SCHEMA = Symbol('schema');

/** What tools that draw lists and forms need to know of the schema: as the role of the caller has it, and no word more. */
@Controller('meta')
export class MetaController {
  /** By role. There are few, and a schema does not change while a process runs. */
  private readonly described = new Map<string, { body: string; etag: string }>();

  constructor(@Inject(SCHEMA) private readonly schema: SchemaDefinition) {}

  @Get('schema')
  models(@Req() request: FastifyRequest, @Res() reply: FastifyReply): void {
    const { body, etag } = this.of(principalOf(request).role);
    // It is another one after the next login of somebody else, so a browser asks each time, and nobody else keeps it.
    void reply.headers({ etag, 'cache-control': 'private, no-cache', vary: 'authorization' });
    const known = request.headers['if-none-match']?.split(',').map((tag) => tag.trim().replace(/^W\//, ''));
    if (known?.some((tag) => tag === etag || tag === '*')) void reply.status(304).send();
    else void reply.type('application/json; charset=utf-8').send(body);
  }

  private of(role: string): { body: string; etag: string } {
    // Names from outside cannot fill the memory: what is not declared may do nothing, and is described alike.
    const name = this.schema.roles.includes(role) ? role : '';
    let described = this.described.get(name);
    if (!described) {
      const body = JSON.stringify(describeSchema(this.schema, name));
      described = { body, etag: `"${createHash('sha256').update(body).digest('base64url')}"` };
      this.described.set(name, described);
    }
    return described;
  }
}
