import { createHash, randomFillSync } from 'node:crypto';

/** A string that only the parser of its kind can make, so that a tenant's id is never taken for a stream's. */
export type Branded<Name extends string> = string & { readonly __brand: Name };

/** The id of a tenant: a UUID. */
export type TenantId = Branded<'TenantId'>;
/** The id of a user: a UUID. */
export type UserId = Branded<'UserId'>;

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** The tenant that exists from the first migration on; the only one until more are created. */
export const DEFAULT_TENANT_ID = '00000000-0000-7000-8000-000000000001' as TenantId;

/** True for a lower-case UUID of any version. */
export function isUuid(value: unknown): value is string {
  return typeof value === 'string' && UUID.test(value);
}

/** Reads a tenant id; throws a RangeError when the value is no lower-case UUID. */
export function tenantId(value: string): TenantId {
  if (!isUuid(value)) throw new RangeError('a tenant id is a lower-case UUID');
  return value as TenantId;
}

function format(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}

/** Random bytes drawn from the system at once: asking for sixteen costs as much as asking for these. */
const drawn = Buffer.alloc(4096);
let drawnUsed = drawn.length;

/** Sixteen random bytes that nobody was given before. */
function sixteenBytes(): Buffer {
  if (drawnUsed === drawn.length) {
    randomFillSync(drawn);
    drawnUsed = 0;
  }
  drawnUsed += 16;
  return drawn.subarray(drawnUsed - 16, drawnUsed);
}

let lastMillisecond = 0;
let lastSequence = 0;

/**
 * A new UUID of version 7 (RFC 9562 §5.7): 48 bits of milliseconds, so that ids made later sort later and land at the end
 * of an index. Within one process the order also holds inside a millisecond: the 12 bits after the version are a counter
 * that starts at a random value (RFC 9562 §6.2, method 1); when it runs over, the next millisecond is borrowed.
 */
export function uuidv7(now: number = Date.now()): string {
  const bytes = sixteenBytes();
  if (now > lastMillisecond) {
    lastMillisecond = now;
    lastSequence = bytes.readUInt16BE(6) & 0x7ff;
  } else {
    lastSequence += 1;
    if (lastSequence > 0xfff) {
      lastMillisecond += 1;
      lastSequence = 0;
    }
  }
  bytes.writeUIntBE(lastMillisecond, 0, 6);
  bytes.writeUInt16BE(0x7000 | lastSequence, 6);
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return format(bytes);
}

/**
 * The UUID of version 5 (RFC 9562 §5.5) of `name` within `namespace`: the same input gives the same id on every machine,
 * which makes a repeated import write the same rows.
 * @throws RangeError when `namespace` is no UUID
 */
export function uuidv5(namespace: string, name: string): string {
  if (!isUuid(namespace)) throw new RangeError('a namespace is a lower-case UUID');
  const bytes = createHash('sha1')
    .update(Buffer.from(namespace.replaceAll('-', ''), 'hex'))
    .update(name, 'utf8')
    .digest()
    .subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x50;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return format(bytes);
}
