import { hasChecksum } from '@atomo-cc/kernel';

/** A permission of a store's key. Write without read is a drop box: it may change files and sees none. */
export const PERMISSIONS = ['read', 'write'] as const;
/** A permission of a store's key. */
export type Permission = (typeof PERMISSIONS)[number];

/** What every master key begins with. */
export const MASTER_KEY_PREFIX = 'sk_admin_';

const STORE_KEY = /^sk_store_([0-9a-f]{6})_([A-Za-z0-9_-]{32})$/;

/** What a store's keys begin with, up to the secret: `sk_store_` and the first six hex digits of the store's UUID. */
export function storeKeyPrefix(storeId: string): string {
  return `sk_store_${storeId.replaceAll('-', '').slice(0, 6)}_`;
}

/**
 * Whether a store's key is as it was issued, as far as that can be told without asking: its last six characters are a checksum.
 * Keys from before there were checksums are not.
 */
export function isWholeStoreKey(key: unknown): boolean {
  return parseStoreKey(key) !== null && hasChecksum(key as string);
}

/**
 * Reads a store's key: `sk_store_{6 hex}_{32 base64url}`. Null when it cannot be one, which spares a look-up.
 * @returns the digits that hint at the store; they prove nothing
 */
export function parseStoreKey(key: unknown): { storeHint: string } | null {
  const match = typeof key === 'string' ? STORE_KEY.exec(key) : null;
  return match ? { storeHint: match[1]! } : null;
}
