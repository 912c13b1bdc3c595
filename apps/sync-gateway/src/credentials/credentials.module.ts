import { type DynamicModule, Module } from '@nestjs/common';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { Denials, DENIALS_DATABASE } from './denials.js';
import { MASTER_KEY } from './guards.js';
import { KeyRing } from './key-ring.js';

/** Provides the key ring, the master key and the denials. The system role stays inside: others cannot inject it. */
@Module({})
export class CredentialsModule {
  static with(system: SystemDatabase, masterKey: string): DynamicModule {
    const providers = [
      { provide: KeyRing, useValue: new KeyRing(system) },
      { provide: MASTER_KEY, useValue: masterKey },
    ];
    return {
      module: CredentialsModule,
      providers: [...providers, { provide: DENIALS_DATABASE, useValue: system }, Denials],
      exports: [...providers, Denials],
    };
  }
}
