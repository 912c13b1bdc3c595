import { apiError, type TenantId } from '@atomo-cc/kernel';
import type { AppDatabase } from '../postgres/index.js';
import type { BlobBytes, PlacedBlob } from './blobs.js';

/**
 * The size of one stored piece. Postgres keeps each in its out-of-line storage; 256 KiB keeps a piece's row cheap to read
 * while a gigabyte stays at 4,096 rows.
 */
const PIECE_BYTES = 256 * 1024;
/** Pieces written per transaction, so that an upload of any size holds at most 4 MiB in memory and no long transaction. */
const PIECES_PER_WRITE = 16;

/** Bytes of blobs as rows of `blob_pieces`. */
export class PostgresPieces implements BlobBytes {
  constructor(private readonly database: AppDatabase) {}

  place() {
    return { storage: 'postgres', bucket: null, key: null } as const;
  }

  async write(tenant: TenantId, { id }: PlacedBlob, source: AsyncIterable<Uint8Array>): Promise<void> {
    let n = 0;
    let pieces: Buffer[] = [];
    const flush = async () => {
      const first = n - pieces.length;
      const batch = pieces;
      pieces = [];
      await this.database.transaction(tenant, (tx) =>
        tx.execute(
          `insert into blob_pieces (tenant_id, blob_id, n, bytes)
           select $1, $2, $3 + ord - 1, bytes from unnest($4::bytea[]) with ordinality as p (bytes, ord)`,
          [tenant, id, first, batch],
        ),
      );
    };
    for await (const piece of cut(source)) {
      n += 1;
      pieces.push(piece);
      if (pieces.length === PIECES_PER_WRITE) await flush();
    }
    if (pieces.length > 0) await flush();
  }

  async *read(tenant: TenantId, { id }: PlacedBlob, from: number, size: number): AsyncGenerator<Buffer> {
    const end = Math.ceil(size / PIECE_BYTES);
    let n = Math.floor(from / PIECE_BYTES);
    let skip = from % PIECE_BYTES;
    while (n < end) {
      const rows = await this.database.transaction(tenant, (tx) =>
        tx.query<{ bytes: Buffer }>(
          'select bytes from blob_pieces where blob_id = $1 and n >= $2 order by n limit $3',
          [id, n, PIECES_PER_WRITE],
        ),
      );
      for (const { bytes } of rows) {
        if (skip < bytes.length) yield skip > 0 ? bytes.subarray(skip) : bytes;
        skip = 0;
      }
      if (rows.length === 0) throw apiError('NOT_FOUND', 'The upload was removed while it was read.');
      n += rows.length;
    }
  }

  /** The pieces go with the blob's row. */
  async remove(): Promise<void> {}
}

/** Cuts a stream into pieces of exactly PIECE_BYTES (the last may be shorter), so that an offset names its piece. */
async function* cut(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  let held: Uint8Array[] = [];
  let length = 0;
  for await (let chunk of source) {
    while (length + chunk.length >= PIECE_BYTES) {
      const taken = PIECE_BYTES - length;
      yield Buffer.concat([...held, chunk.subarray(0, taken)]);
      chunk = chunk.subarray(taken);
      held = [];
      length = 0;
    }
    if (chunk.length > 0) {
      held.push(chunk);
      length += chunk.length;
    }
  }
  if (length > 0) yield Buffer.concat(held);
}
