export { StoreFiles1700000300002 } from './file-rows.js';
export { FilesModule } from './files.module.js';
