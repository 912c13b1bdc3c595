import { Inject, Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { type Origin, Refusals } from '@atomo-cc/access';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import type { Sync2ErrorCode } from '@atomo-cc/sync-protocol';
import type { StoreKey } from './key-ring.js';

/** The token under which the database of the system role is injected here, and nowhere else. */
export const DENIALS_DATABASE = Symbol('database of denials');

/** Refusals that tell of a key in wrong hands or a client gone wrong: beyond its rights, its store's room, or a folder's border. */
const DENIED: ReadonlySet<string> = new Set<Sync2ErrorCode>(['FORBIDDEN', 'QUOTA_EXCEEDED', 'PATH_INVALID']);

/** Tells the tenant's log what a key was refused, and the operator's what was tried without one; coalesced, behind the answer. */
@Injectable()
export class Denials implements OnApplicationShutdown {
  private readonly refusals: Refusals;

  constructor(@Inject(DENIALS_DATABASE) system: SystemDatabase, @Inject(LOGGER) logger: Logger) {
    this.refusals = new Refusals(system, {
      onError: (error) => logger.warn({ err: error }, 'refusals wait for the log'),
    });
  }

  /**
   * Of a refusal that is part of the work, such as CONFLICT, nothing is told.
   * @param operation a method and route, the name of an event, or `push` and the kind of one operation
   * @param code with which it was refused
   */
  ofKey({ id, tenantId }: Pick<StoreKey, 'id' | 'tenantId'>, operation: string, code: string, from: Origin): void {
    if (!DENIED.has(code)) return;
    const what = code === 'FORBIDDEN' ? operation : `${operation}: ${code}`;
    this.refusals.denied({ tenantId, actor: `key:${id}` }, what, from);
  }

  /** Of an admin route, without the master key. */
  ofNobody(operation: string, from: Origin): void {
    this.refusals.denied(null, operation, from);
  }

  async onApplicationShutdown(): Promise<void> {
    await this.refusals.close();
  }
}
