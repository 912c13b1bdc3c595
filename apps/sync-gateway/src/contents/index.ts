export { bytesOf, carriedString, carry, hashOfBytes } from './carried.js';
export type { Carriage, Carried } from './carried.js';
export { Contents, seesAll, StoreBlobs1700000300003 } from './contents.js';
export type { FileContent } from './contents.js';
