/** Why something that is kept sealed cannot be opened. */
export const SEALED_DATA_ERRORS = {
  ENCRYPTION_KEY_WRONG:
    'The keys of personal data and of secrets were wrapped under another ENCRYPTION_KEY, whose id the message names. Start with that one: without it they cannot be read.',
  SEALED_DATA_BROKEN:
    'Sealed data, or the key it needs, is not as it was written; the message names the place. Run `npm run events -- verify`, and compare with a backup; set a secret again.',
} as const;
