/** The faults of memory that a person or a caller has to mend, beside the codes of the API. */
export const MEMORY_ERRORS = {
  MEMORY_EMBEDDER_CHANGED:
    'The index of this tenant was written with another embedder, whose vectors cannot be compared. Run the rebuild of the index, or configure the former embedder again.',
  MEMORY_EMBEDDING_BROKEN:
    'The embedder answered another number of vectors, or another length, than it promises. Check the embedding endpoint and its model; nothing was written.',
  MEMORY_CHUNK_TOO_LARGE: 'More messages were handed over at once than one transaction takes. Split them.',
  MEMORY_STORE_FAILED:
    'LanceDB could not read or write the index. Check that MEMORY_URI is reachable and writable, then try again; nothing is lost, Postgres holds the records.',
} as const;

/** A code of memory. */
export type MemoryErrorCode = keyof typeof MEMORY_ERRORS;
