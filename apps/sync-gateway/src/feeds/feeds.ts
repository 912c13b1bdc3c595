import { Inject, Injectable } from '@nestjs/common';
import type { TenantId } from '@atomo-cc/kernel';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import { Contents } from '../contents/index.js';
import type { StoreKey } from '../credentials/index.js';
import { Clients } from '../sockets/index.js';
import { type Committed, Feed } from './feed.js';

/** A feed without readers is kept for a while: devices on a bad line come and go. */
const IDLE_MS = 60_000;

/** The feeds of the stores that somebody on this node reads. */
@Injectable()
export class Feeds {
  private readonly feeds = new Map<string, Feed>();
  private readonly commits = new Map<string, Promise<void>>();

  constructor(
    private readonly database: AppDatabase,
    private readonly contents: Contents,
    private readonly clients: Clients,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /**
   * The store's feed, once it knows where the store stands: whoever reads the store after this misses nothing.
   * @throws CodedError NOT_FOUND
   */
  async open({ tenantId, storeId }: Pick<StoreKey, 'tenantId' | 'storeId'>): Promise<Feed> {
    let feed = this.feeds.get(storeId);
    if (!feed) {
      const { database, contents, clients, logger } = this;
      const inFlight = (id: string) => this.commits.get(id) ?? Promise.resolve();
      feed = new Feed({ database, contents, clients, logger, inFlight }, tenantId, storeId);
      this.feeds.set(storeId, feed);
    }
    try {
      await feed.started;
    } catch (error) {
      this.feeds.delete(storeId);
      throw error;
    }
    return feed;
  }

  /** Runs a commit to the store; what it wrote must be told by `committed` before it ends. */
  async during(storeId: string, work: () => Promise<void>): Promise<void> {
    const commit = work();
    this.commits.set(
      storeId,
      commit.then(
        () => undefined,
        () => undefined,
      ),
    );
    try {
      await commit;
    } finally {
      this.commits.delete(storeId);
    }
  }

  /** Takes changes that this node has committed, in the order of `seq`, and tells the other nodes that there are some. */
  committed(storeId: string, changes: readonly Committed[]): void {
    this.feeds.get(storeId)?.committed(changes);
    this.clients.hint(storeId, changes.at(-1)!.seq);
  }

  /** Takes word of another node, or of the database. */
  hinted(storeId: string, seq: number, epoch?: string): void {
    this.feeds.get(storeId)?.hinted(seq, epoch);
  }

  /** The stores that are read here, by tenant; those that nobody has needed for a minute are let go. */
  watched(): Map<TenantId, string[]> {
    const stores = new Map<TenantId, string[]>();
    for (const [id, feed] of this.feeds) {
      if (feed.isIdle(IDLE_MS)) this.feeds.delete(id);
      else stores.set(feed.tenant, [...(stores.get(feed.tenant) ?? []), id]);
    }
    return stores;
  }
}
