export { aMailbox, figuresOf, indexedIds } from './mailbox.js';
