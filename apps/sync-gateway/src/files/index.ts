export { FileContents1700000300004, StoreFiles1700000300002 } from './file-rows.js';
export { FileWrites } from './file-writes.js';
export { FilesModule } from './files.module.js';
export { expectedBase, expectedByHeaders, isMet, tagOf } from './preconditions.js';
export type { Preconditions } from './preconditions.js';
export type { Intent } from './workspace.js';
