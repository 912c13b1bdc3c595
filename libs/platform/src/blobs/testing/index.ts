export { FakeS3 } from './fake-s3.js';
export type { Fault, S3Operation } from './fake-s3.js';
