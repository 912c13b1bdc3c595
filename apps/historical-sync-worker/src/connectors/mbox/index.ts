export { openMailArchive } from './archive.js';
export type { MailArchive } from './archive.js';
export { parseMail } from './mail.js';
export type { MailFault, MailRecord } from './mail.js';
export { ArchiveError } from './mbox.js';
export type { MboxEntry } from './mbox.js';
