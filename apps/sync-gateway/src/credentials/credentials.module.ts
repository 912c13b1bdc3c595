import { type DynamicModule, Module } from '@nestjs/common';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { MASTER_KEY } from './guards.js';
import { KeyRing } from './key-ring.js';

/** Provides the key ring and the master key. The system role stays inside the key ring: it is no provider. */
@Module({})
export class CredentialsModule {
  static with(system: SystemDatabase, masterKey: string): DynamicModule {
    const providers = [
      { provide: KeyRing, useValue: new KeyRing(system) },
      { provide: MASTER_KEY, useValue: masterKey },
    ];
    return { module: CredentialsModule, providers, exports: providers };
  }
}
