import { createHash } from 'node:crypto';

/** Larger texts are not merged, and no base is kept of them: they are treated as binary files. */
export const TEXT_LIMIT_BYTES = 1024 * 1024;

/** `sha256:` and 64 hex digits of the bytes. */
export function hashOf(content: Uint8Array): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text that the bytes are in UTF-8, unchanged to the last byte; null for anything that is no text or too long. */
export function textOf(content: Uint8Array): string | null {
  if (content.length > TEXT_LIMIT_BYTES || content.includes(0)) return null;
  try {
    return utf8.decode(content);
  } catch {
    return null;
  }
}

/** The bytes of a text. */
export function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
