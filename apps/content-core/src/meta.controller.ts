import { Controller, Get, Inject } from '@nestjs/common';
import type { ModelDefinition, SchemaDefinition } from '@atomo-cc/schema';
import { Public } from './auth/index.js';

/** The token under which the service's schema is injected. */
export const SCHEMA = Symbol('schema');

/** What tools need to know of the schema; open to everyone, because it says nothing about any record. */
@Public()
@Controller('meta')
export class MetaController {
  constructor(@Inject(SCHEMA) private readonly schema: SchemaDefinition) {}

  @Get('schema')
  models(): { version: number; models: Omit<ModelDefinition, 'table'>[] } {
    // Where rows are kept is nobody's business outside.
    return { version: this.schema.version, models: this.schema.models.map(({ table: _table, ...model }) => model) };
  }
}
