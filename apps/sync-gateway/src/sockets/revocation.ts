import { Inject, Injectable, type BeforeApplicationShutdown, type OnApplicationBootstrap } from '@nestjs/common';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { KeyRing } from '../credentials/index.js';
import { Clients } from './clients.js';

/** How often the keys of open sockets are looked at: one query for all of them, so that also a silent reader is cut within 5 s. */
const SWEEP_MS = 2_000;

/** Ends the sockets whose key was revoked on another node, has expired, or lost its store. */
@Injectable()
export class Revocation implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private timer: NodeJS.Timeout | undefined;
  private isSweeping = false;

  constructor(
    private readonly keys: KeyRing,
    private readonly clients: Clients,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  onApplicationBootstrap(): void {
    this.timer = setInterval(() => void this.sweep(), SWEEP_MS).unref();
  }

  beforeApplicationShutdown(): void {
    clearInterval(this.timer);
  }

  /** Looks once. While the database does not answer nobody is cut: no change can be written then either. */
  async sweep(): Promise<void> {
    if (this.isSweeping) return;
    this.isSweeping = true;
    try {
      const ids = [...new Set(this.clients.all().map((socket) => socket.data.key.id))];
      if (ids.length === 0) return;
      const active = await this.keys.active(ids);
      const ended = new Set(ids.filter((id) => !active.has(id)));
      for (const id of ended) this.keys.forget(id);
      // Sockets that came meanwhile are not judged: their key was looked up just now.
      this.clients.revoke((key) => ended.has(key.id));
    } catch (error) {
      this.logger.warn({ err: error }, 'the keys of open sockets could not be checked');
    } finally {
      this.isSweeping = false;
    }
  }
}
