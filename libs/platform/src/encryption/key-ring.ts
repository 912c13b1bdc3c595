import { createHmac, createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';
import { CodedError } from '@atomo-cc/kernel';
import { open, seal } from './boxes.js';

/** Why something that is kept sealed cannot be opened. */
export const SEALED_DATA_ERRORS = {
  ENCRYPTION_KEY_WRONG:
    'The keys of personal data and of secrets were wrapped under another ENCRYPTION_KEY, whose id the message names. Start with that one: without it they cannot be read.',
  SEALED_DATA_BROKEN:
    'Sealed data, or the key it needs, is not as it was written; the message names the place. Run `npm run events -- verify`, and compare with a backup; set a secret again.',
} as const;

/** Of AES-256, in bytes. */
export const KEY_BYTES = 32;

/** A key as it is stored. */
export interface WrappedKey {
  readonly wrapped: Buffer;
  /** The id of the key-encryption key. */
  readonly wrapped_by: string;
}

/**
 * The key-encryption keys: what other keys are stored under. They are derived from ENCRYPTION_KEY and never reach the database.
 * One is in use; the accepted ones open what was wrapped under them and wrap nothing, for the time of a rotation.
 */
export class KeyRing {
  /** Tells the key in use apart from others without giving it away; stands beside each key that it has wrapped. */
  readonly id: string;
  readonly #inUse: KeyObject;
  /** By their ids: the one in use, and those under which there may still be keys. */
  readonly #known: ReadonlyMap<string, KeyObject>;

  /**
   * @param encryptionKey ENCRYPTION_KEY; HKDF (RFC 5869) does not strengthen a guessable one: use 32 random bytes or more
   * @param accepted ENCRYPTION_KEYS_ACCEPTED
   */
  constructor(encryptionKey: string, accepted: readonly string[] = []) {
    const all = [encryptionKey, ...accepted].map(keyEncryptionKey);
    this.#inUse = all[0]!;
    this.#known = new Map(all.map((key) => [idOf(key), key]));
    this.id = idOf(this.#inUse);
  }

  /** Whether keys under this id can be opened here. */
  knows(id: string): boolean {
    return this.#known.has(id);
  }

  /** Wraps a key under the one in use. @param context what it is the key of; it opens for nothing else */
  wrap(context: readonly unknown[], key: Buffer): Buffer {
    return seal(this.#inUse, context, key);
  }

  /**
   * The key that was wrapped.
   * @param what names it to people: `key 1 of Contact-…`
   * @throws CodedError ENCRYPTION_KEY_WRONG, SEALED_DATA_BROKEN
   */
  unwrap(context: readonly unknown[], { wrapped, wrapped_by: needed }: WrappedKey, what: string): KeyObject {
    const wrapping = this.#known.get(needed);
    if (!wrapping) {
      throw new CodedError(
        'ENCRYPTION_KEY_WRONG',
        `The ${what} needs the ENCRYPTION_KEY with the id ${needed}; the one in use has the id ${this.id}. Start with the other one.`,
        { needed, inUse: this.id },
      );
    }
    const key = open(wrapping, context, wrapped);
    if (key?.length === KEY_BYTES) return createSecretKey(key);
    throw new CodedError(
      'SEALED_DATA_BROKEN',
      `The ${what} is not as it was written. ${SEALED_DATA_ERRORS.SEALED_DATA_BROKEN}`,
      { what },
    );
  }
}

// The word "subject" is part of what was derived before there were other keys than theirs, and so stays.
function keyEncryptionKey(encryptionKey: string): KeyObject {
  return createSecretKey(Buffer.from(hkdfSync('sha256', encryptionKey, '', 'atomo subject keys 1', KEY_BYTES)));
}

function idOf(key: KeyObject): string {
  return createHmac('sha256', key).update('atomo key id').digest('hex').slice(0, 16);
}
