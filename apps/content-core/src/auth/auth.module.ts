import { type DynamicModule, Inject, Module, type OnModuleInit } from '@nestjs/common';
import { APP_GUARD, APP_PIPE, HttpAdapterHost } from '@nestjs/core';
import type { FastifyInstance } from 'fastify';
import { type Access, Callers, ensureFirstAdmin, Logins, Sessions } from '@atomo-cc/access';
import { SystemDatabase } from '@atomo-cc/platform/postgres';
import { AuthController } from './auth.controller.js';
import { BearerGuard, tellDenials } from './bearer.guard.js';
import { requestValidation } from './request-validation.js';

/** What authentication is set up with. */
export interface AuthSettings {
  readonly access: Access;
  /** The login of the first administrator, made when there is no user yet. */
  readonly admin: { readonly email: string; readonly password: string };
}

const SETTINGS = Symbol('auth settings');

/**
 * The rim of REST: login, the guard that asks all routes for a token, and the check of bodies. Needs a SystemDatabase that was
 * opened with `accessEntities` among what the service provides.
 */
@Module({})
export class AuthModule implements OnModuleInit {
  constructor(
    @Inject(HttpAdapterHost) private readonly http: HttpAdapterHost,
    @Inject(SETTINGS) private readonly settings: AuthSettings,
    @Inject(SystemDatabase) private readonly system: SystemDatabase,
  ) {}

  static with(settings: AuthSettings): DynamicModule {
    return {
      module: AuthModule,
      controllers: [AuthController],
      providers: [
        { provide: SETTINGS, useValue: settings },
        { provide: Callers, useValue: settings.access.callers },
        { provide: Logins, useValue: settings.access.logins },
        { provide: Sessions, useValue: settings.access.sessions },
        { provide: APP_GUARD, useClass: BearerGuard },
        { provide: APP_PIPE, useFactory: requestValidation },
      ],
    };
  }

  async onModuleInit(): Promise<void> {
    tellDenials(this.http.httpAdapter.getInstance<FastifyInstance>(), this.settings.access.refusals);
    await ensureFirstAdmin(this.system, this.settings.admin);
  }
}
