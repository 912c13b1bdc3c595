const KIB = 1024;
const MIB = 1024 * KIB;

/** The largest content that travels inside an operation: a note. What is larger is uploaded as parts. */
export const INLINE_LIMIT_BYTES = 256 * KIB;
/**
 * The largest part of an upload and the largest piece to ask for in one download: a phone's HTTP turns a body into a string
 * of base64 in memory, and dies of more than some tens of megabytes.
 */
export const PART_LIMIT_BYTES = 4 * MIB;
/** The largest file: 256 full parts. */
export const FILE_LIMIT_BYTES = 1024 * MIB;
/** Operations of one push. */
export const PUSH_LIMIT = 100;
/** Inline bytes of one push, before base64. */
export const PUSH_LIMIT_BYTES = 4 * MIB;
/** Changes or files of one page. */
export const PAGE_LIMIT = 1_000;
/** Changes or files of one page when the client names no limit. */
export const PAGE_DEFAULT = 500;
/** Contents up to this ride along with changes, while they are few. */
export const HINT_LIMIT_BYTES = 32 * KIB;
/**
 * Positions that a client which acks is sent beyond the last one that it has applied: some pages, so that it never waits for the
 * next one, and little enough to hold.
 */
export const ACK_WINDOW = 1_000;
/** Inline bytes of one page; when they are used up the files after it come without. */
export const PAGE_LIMIT_BYTES = 2 * MIB;
/** Hashes of one question for missing parts. */
export const MISSING_LIMIT = 1_000;
/** The longest a long poll waits, in seconds; below the idle limits of usual proxies. */
export const POLL_LIMIT_SECONDS = 25;
/** The largest presence state, in characters of its JSON. */
export const PRESENCE_LIMIT = 1_024;
/** Files that one operation on a folder may touch. */
export const FOLDER_LIMIT = 20_000;
/** Folders of one digest answer. A folder with more is compared by its snapshot. */
export const DIGEST_FOLDERS = 1_000;
