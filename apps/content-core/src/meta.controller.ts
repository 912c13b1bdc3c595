import { Controller, Get, Inject } from '@nestjs/common';
import { ADMIN, describeSchema, type SchemaDefinition, type SchemaDescription } from '@atomo-cc/schema';
import { Public } from './auth/index.js';

/** The token under which the service's schema is injected. */
export const SCHEMA = Symbol('schema');

/** What tools need to know of the schema; open to everyone, because it says nothing about any record. */
@Public()
@Controller('meta')
export class MetaController {
  constructor(@Inject(SCHEMA) private readonly schema: SchemaDefinition) {}

  @Get('schema')
  models(): SchemaDescription {
    return describeSchema(this.schema, ADMIN);
  }
}
