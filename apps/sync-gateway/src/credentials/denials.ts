import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { type Origin, Refusals } from '@atomo-cc/access';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import type { StoreKey } from './key-ring.js';

/** The token under which the database of the system role is injected here, and nowhere else. */
export const DENIALS_DATABASE = Symbol('database of denials');

/** Tells the tenant's log what a key was refused, and the operator's what was tried without one; coalesced, behind the answer. */
@Injectable()
export class Denials implements OnApplicationShutdown {
  private readonly refusals: Refusals;

  constructor(@Inject(DENIALS_DATABASE) system: SystemDatabase, @Inject(LOGGER) logger: Logger) {
    this.refusals = new Refusals(system, {
      onError: (error) => logger.warn({ err: error }, 'refusals wait for the log'),
    });
  }

  /** @param operation a method and route, or the name of an event */
  ofKey({ id, tenantId }: Pick<StoreKey, 'id' | 'tenantId'>, operation: string, from: Origin): void {
    this.refusals.denied({ tenantId, actor: `key:${id}` }, operation, from);
  }

  /** Of an admin route, without the master key. */
  ofNobody(operation: string, from: Origin): void {
    this.refusals.denied(null, operation, from);
  }

  async onApplicationShutdown(): Promise<void> {
    await this.refusals.close();
  }
}
