import { createCipheriv, createDecipheriv, randomFillSync, type KeyObject } from 'node:crypto';

/** Of AES-256-GCM, in bytes: the lengths of NIST SP 800-38D §5.2, with the full tag. */
const [NONCE_BYTES, TAG_BYTES] = [12, 16] as const;
const CIPHER = 'aes-256-gcm';
const TAG = { authTagLength: TAG_BYTES } as const;
/** The first byte of whatever is sealed: a version of the form, so that another cipher can follow one day. */
const BOX_FORM = 1;

/** Nonces drawn from the system at once: asking for twelve bytes costs as much as asking for these. */
const NONCES = 256;
const nonces = Buffer.alloc(NONCES * NONCE_BYTES);
let noncesUsed = NONCES;

/** Twelve random bytes that nobody was given before; to be copied before the next ones are asked for. */
function nextNonce(): Buffer {
  if (noncesUsed === NONCES) {
    randomFillSync(nonces);
    noncesUsed = 0;
  }
  noncesUsed += 1;
  return nonces.subarray((noncesUsed - 1) * NONCE_BYTES, noncesUsed * NONCE_BYTES);
}

/**
 * Seals a text with AES-256-GCM: one byte for the form, a random nonce, the ciphertext, the tag. Random nonces of 96 bits
 * are good for 2³² boxes under one key (NIST SP 800-38D §8.3): a subject has events by the thousand.
 * @param key as a KeyObject: a cipher is made of one three times as fast as of bytes
 * @param context what the box belongs to; it opens nowhere else
 */
export function seal(key: KeyObject, context: readonly unknown[], content: string | Buffer): Buffer {
  const nonce = nextNonce();
  const cipher = createCipheriv(CIPHER, key, nonce, TAG);
  cipher.setAAD(Buffer.from(JSON.stringify(context)));
  const sealed = typeof content === 'string' ? cipher.update(content, 'utf8') : cipher.update(content);
  cipher.final();
  const box = Buffer.allocUnsafe(1 + NONCE_BYTES + sealed.length + TAG_BYTES);
  box[0] = BOX_FORM;
  box.set(nonce, 1);
  box.set(sealed, 1 + NONCE_BYTES);
  box.set(cipher.getAuthTag(), box.length - TAG_BYTES);
  return box;
}

/** What was sealed; null when the box was changed, or belongs to another key or context. */
export function open(key: KeyObject, context: readonly unknown[], box: Buffer): Buffer | null {
  if (box[0] !== BOX_FORM || box.length < 1 + NONCE_BYTES + TAG_BYTES) return null;
  const nonce = box.subarray(1, 1 + NONCE_BYTES);
  // The length must be said: without it a tag of four bytes would do, and four bytes can be guessed.
  const decipher = createDecipheriv(CIPHER, key, nonce, TAG);
  decipher.setAAD(Buffer.from(JSON.stringify(context)));
  decipher.setAuthTag(box.subarray(-TAG_BYTES));
  const content = decipher.update(box.subarray(1 + NONCE_BYTES, -TAG_BYTES));
  try {
    // It adds nothing, as GCM has no padding, and throws where the tag is another.
    decipher.final();
    return content;
  } catch {
    return null;
  }
}
