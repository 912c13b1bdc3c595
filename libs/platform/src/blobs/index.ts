export { Blobs1700000003000, BlobStore } from './blobs.js';
export type { Blob } from './blobs.js';
