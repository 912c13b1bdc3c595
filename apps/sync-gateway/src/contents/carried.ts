import { hash as digest } from 'node:crypto';
import { CONTENT_LIMIT, contentFault, type ContentHash, fileKind, type SyncPath } from '@atomo-cc/sync-protocol';

/** How protocol 1 carries a file's bytes in its `content`. */
export type Carriage = 'text' | 'base64';

/** A file as protocol 1 shows it. */
export interface Carried {
  readonly as: Carriage;
  /** `sha256:` and 64 hex digits, over the string. */
  readonly hash: string;
  /** Bytes of the string in UTF-8. */
  readonly size: number;
}

/** The largest file that fits protocol 1's content as text, in bytes; as base64 it is less. */
export const CARRIED_LIMIT_BYTES = 3 * CONTENT_LIMIT;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The hash of bytes, as protocol 2 shows it. */
export function hashOfBytes(bytes: Uint8Array): ContentHash {
  return `sha256:${digest('sha256', bytes, 'hex')}` as ContentHash;
}

/** The string that protocol 1 carries for these bytes. */
export function carry(bytes: Buffer, as: Carriage): string {
  return bytes.toString(as === 'base64' ? 'base64' : 'utf8');
}

/**
 * The bytes of a content of protocol 1. Base64 of the one canonical form becomes what it stands for; anything else under a
 * binary extension (nothing keeps a client from sending it) stays the text that it is, so that it reads back unchanged.
 */
export function bytesOf(path: SyncPath, content: string): { bytes: Buffer; as: Carriage } {
  if (fileKind(path).isBinary) {
    const bytes = Buffer.from(content, 'base64');
    if (bytes.toString('base64') === content) return { bytes, as: 'base64' };
  }
  return { bytes: Buffer.from(content), as: 'text' };
}

/** How protocol 1 shows bytes of this hash that came by protocol 2; null when it cannot: they are longer than its content may be. */
export function carriedOf(path: SyncPath, bytes: Buffer, hash: ContentHash): Carried | null {
  if (!fileKind(path).isBinary) {
    const text = textOf(bytes);
    if (text !== null && contentFault(text) === null) return { as: 'text', hash, size: bytes.length };
  }
  const content = bytes.toString('base64');
  return content.length > CONTENT_LIMIT ? null : carriedString(content, 'base64');
}

/** How protocol 1 shows a string that it carried itself. */
export function carriedString(content: string, as: Carriage): Carried {
  const bytes = Buffer.from(content);
  return { as, hash: hashOfBytes(bytes), size: bytes.length };
}

function textOf(bytes: Buffer): string | null {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}
