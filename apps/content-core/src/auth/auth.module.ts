import { type DynamicModule, Inject, Module, type OnModuleInit } from '@nestjs/common';
import { APP_GUARD, APP_PIPE } from '@nestjs/core';
import { ensureFirstAdmin, Sessions } from '@atomo-cc/access';
import { SystemDatabase } from '@atomo-cc/platform/postgres';
import { AuthController } from './auth.controller.js';
import { BearerGuard } from './bearer.guard.js';
import { requestValidation } from './request-validation.js';

/** What authentication is set up with. */
export interface AuthSettings {
  /** AUTH_SECRET: the signing key is derived from it. */
  readonly secret: string;
  /** The login of the first administrator, made when there is no user yet. */
  readonly admin: { readonly email: string; readonly password: string };
}

const SETTINGS = Symbol('auth settings');

/**
 * The rim of REST: login, the guard that asks all routes for a token, and the check of bodies. `Sessions`
 * is exported for those who authenticate otherwise, such as GraphQL. Needs a SystemDatabase that was opened with
 * `accessEntities` among what the service provides.
 */
@Module({})
export class AuthModule implements OnModuleInit {
  constructor(
    @Inject(SETTINGS) private readonly settings: AuthSettings,
    @Inject(SystemDatabase) private readonly system: SystemDatabase,
  ) {}

  static with(settings: AuthSettings): DynamicModule {
    return {
      module: AuthModule,
      controllers: [AuthController],
      providers: [
        { provide: SETTINGS, useValue: settings },
        {
          provide: Sessions,
          inject: [SystemDatabase],
          useFactory: (system: SystemDatabase) => new Sessions(system, { secret: settings.secret }),
        },
        { provide: APP_GUARD, useClass: BearerGuard },
        { provide: APP_PIPE, useFactory: requestValidation },
      ],
      exports: [Sessions],
    };
  }

  async onModuleInit(): Promise<void> {
    await ensureFirstAdmin(this.system, this.settings.admin);
  }
}
