import { type BeforeApplicationShutdown, Inject, Injectable, type OnApplicationBootstrap } from '@nestjs/common';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import { Feeds } from './feeds.js';

/** How often this node looks where the stores stand that it reads: the most that a lost hint costs. One query a tenant. */
const POLL_MS = 2_000;

/** Looks for changes of other nodes whose hint was lost, as all are while Redis is away. */
@Injectable()
export class HeadPoll implements OnApplicationBootstrap, BeforeApplicationShutdown {
  private timer: NodeJS.Timeout | undefined;
  private isPolling = false;

  constructor(
    private readonly database: AppDatabase,
    private readonly feeds: Feeds,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  onApplicationBootstrap(): void {
    this.timer = setInterval(() => void this.poll(), POLL_MS).unref();
  }

  beforeApplicationShutdown(): void {
    clearInterval(this.timer);
  }

  private async poll(): Promise<void> {
    if (this.isPolling) return;
    this.isPolling = true;
    try {
      for (const [tenant, ids] of this.feeds.watched()) {
        const heads = await this.database.transaction(tenant, (tx) =>
          tx.prepared<{ id: string; epoch: string; head_seq: string }>(
            'select id, epoch, head_seq from stores where id = any($1::uuid[])',
            [ids],
          ),
        );
        for (const { id, epoch, head_seq: seq } of heads) this.feeds.hinted(id, Number(seq), epoch);
      }
    } catch (error) {
      this.logger.warn({ err: error }, 'the heads of stores could not be read');
    } finally {
      this.isPolling = false;
    }
  }
}
