export { DiskFolder, IGNORE_FILE, STATE_FOLDER } from './disk-folder.js';
export type { SeenFiles } from './disk-folder.js';
export { SqliteJournal } from './sqlite-journal.js';
export type { Seen } from './sqlite-journal.js';
export { Vault } from './vault.js';
export type { Standstill, VaultListener, VaultOptions } from './vault.js';
