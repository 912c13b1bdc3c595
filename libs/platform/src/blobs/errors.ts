/** Faults of the storage that BLOBS_URL names. */
export const BLOB_ERRORS = {
  BLOBS_UNAVAILABLE:
    'The storage at BLOBS_URL does not answer, or fails. Try again; if it stays, look at that storage.',
  BLOBS_NOT_PERMITTED:
    'The storage at BLOBS_URL refuses the keys, or has no such bucket. Check BLOBS_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.',
  BLOBS_NOT_CONFIGURED:
    'The upload is on S3-compatible storage, and this service has no BLOBS_URL. Set it to that storage again.',
} as const;
