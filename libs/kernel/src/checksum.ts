const LENGTH = 6;
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/**
 * The text with six characters of base64url behind it that follow from it (its CRC-32): a secret that ends so can be told from
 * a mistyped one without asking anybody, and by scanners from what only looks like one. It protects against accidents alone.
 */
export function withChecksum(text: string): string {
  let left = crc32(text);
  let sum = '';
  for (let place = 0; place < LENGTH; place += 1) {
    sum += ALPHABET.charAt(left & 63);
    left >>>= 6;
  }
  return text + sum;
}

/** Whether the text ends in the checksum of what is before it. */
export function hasChecksum(text: string): boolean {
  return text.length > LENGTH && withChecksum(text.slice(0, -LENGTH)) === text;
}

/** CRC-32 as in zip and Ethernet, of the text's code units, which are single bytes in a secret. */
function crc32(text: string): number {
  let crc = ~0;
  for (let place = 0; place < text.length; place += 1) {
    crc ^= text.charCodeAt(place);
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
