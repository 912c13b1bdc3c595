import { Module, type DynamicModule } from '@nestjs/common';
import type { SchemaDefinition } from '@atomo-cc/schema';
import { AuthModule, type AuthSettings } from './auth/index.js';
import { HistoricalSyncController, Imports } from './historical-sync/index.js';
import { MetaController, SCHEMA } from './meta.controller.js';
import { SubjectExport, SubjectsController } from './subjects/index.js';

/** Wires the REST side of content-core; GraphQL is served beside it (see main.ts). */
@Module({})
export class AppModule {
  static with(settings: {
    auth: AuthSettings;
    schema: SchemaDefinition;
    imports: Imports;
    exports: SubjectExport;
  }): DynamicModule {
    return {
      module: AppModule,
      imports: [AuthModule.with(settings.auth)],
      controllers: [HistoricalSyncController, MetaController, SubjectsController],
      providers: [
        { provide: SCHEMA, useValue: settings.schema },
        { provide: Imports, useValue: settings.imports },
        { provide: SubjectExport, useValue: settings.exports },
      ],
    };
  }
}
