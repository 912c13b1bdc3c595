import { activeApiKeys, findApiKeyByHash, hashApiKey } from '@atomo-cc/access';
import type { TenantId } from '@atomo-cc/kernel';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { parseStoreKey, type Permission, type SyncPath } from '@atomo-cc/sync-protocol';

/** Who acts: a key of a store, and what it may do there. */
export interface StoreKey {
  readonly id: string;
  /** How the key is found again; the key itself is not kept. */
  readonly hash: string;
  readonly tenantId: TenantId;
  readonly storeId: string;
  readonly permissions: readonly Permission[];
  /** The folders that the key sees and writes; empty: the whole store. */
  readonly prefixes: readonly SyncPath[];
  /** When it ends by itself, in milliseconds since 1970; null: never. */
  readonly expiresAt: number | null;
}

/**
 * How long a key that was found counts as valid without another look. With the sweep of open sockets (`Revocation`) it
 * keeps the promise that a key revoked on another node stops within 5 s.
 */
const TRUST_MS = 4_000;
/** Keys kept at most; the ones that were looked up longest ago go first. */
const CACHE_SIZE = 10_000;

/**
 * Finds keys. The one holder of the system role in this process: which tenant a key belongs to is known only after it was
 * found; everything after that happens under the tenant's own rights.
 */
export class KeyRing {
  private readonly found = new Map<string, { key: StoreKey; at: number }>();
  private readonly pending = new Map<string, Promise<StoreKey | null>>();
  /** Counts `forget` calls, so that a look-up under way while a key was revoked is not remembered. */
  private generation = 0;

  constructor(
    private readonly system: SystemDatabase,
    private readonly now: () => number = () => performance.now(),
  ) {}

  /** The key a client presents; null when it is malformed, unknown, revoked or expired. */
  async find(presented: unknown): Promise<StoreKey | null> {
    return parseStoreKey(presented) ? this.current(hashApiKey(presented as string)) : null;
  }

  /** The key with this hash as it is now, at most 4 s old; null when it no longer holds. */
  async current(hash: string): Promise<StoreKey | null> {
    const cached = this.found.get(hash);
    if (cached && this.now() - cached.at < TRUST_MS && !isOver(cached.key)) return cached.key;
    let lookUp = this.pending.get(hash);
    if (!lookUp) {
      lookUp = this.lookUp(hash).finally(() => this.pending.delete(hash));
      this.pending.set(hash, lookUp);
    }
    return lookUp;
  }

  /** Drops what is known of a key, because it was revoked here. */
  forget(keyId: string): void {
    this.generation += 1;
    this.pending.clear();
    for (const [hash, { key }] of this.found) if (key.id === keyId) this.found.delete(hash);
  }

  /** Those of `ids` that are still valid, asked of the database now. */
  async active(ids: readonly string[]): Promise<Set<string>> {
    return this.system.transaction((tx) => activeApiKeys(tx, ids));
  }

  private async lookUp(hash: string): Promise<StoreKey | null> {
    const generation = this.generation;
    const at = this.now();
    const row = await this.system.transaction((tx) => findApiKeyByHash(tx, hash));
    this.found.delete(hash);
    if (!row) return null;
    const { id, tenantId, storeId, permissions } = row;
    const prefixes = row.prefixes as readonly SyncPath[];
    const key: StoreKey = {
      id,
      hash,
      tenantId,
      storeId,
      permissions,
      prefixes,
      expiresAt: row.expiresAt?.getTime() ?? null,
    };
    if (generation === this.generation) {
      this.found.set(hash, { key, at });
      const [oldest] = this.found.keys();
      if (this.found.size > CACHE_SIZE && oldest !== undefined) this.found.delete(oldest);
    }
    return key;
  }
}

function isOver(key: StoreKey): boolean {
  return key.expiresAt !== null && key.expiresAt <= Date.now();
}
