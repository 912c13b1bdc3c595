export { blobMigrations, BlobStore, openBlobStore } from './blobs.js';
export type { Blob } from './blobs.js';
export { BLOB_ERRORS } from './errors.js';
