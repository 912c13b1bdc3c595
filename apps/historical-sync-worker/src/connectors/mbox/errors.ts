/** Why the reading of an archive ended before its end. Everything before that place is kept. */
export const ARCHIVE_ERRORS = {
  NOT_AN_MBOX:
    'The upload is no mail archive; the message says what was found. Send an .mbox, an .mbox.gz or an .eml file.',
  RESUME_POINT_INVALID: 'The archive is not the one the checkpoint was made for. Upload it again and start a new job.',
  ARCHIVE_TRUNCATED:
    'The compressed archive ends in the middle. Its whole messages were read; upload the complete file for the rest.',
  ARCHIVE_CORRUPT:
    'The compressed archive is damaged. The messages before the damage were read; upload a sound copy for the rest.',
} as const;

/** Why one message of an archive was set aside; the others are read. */
export const MAIL_ERRORS = {
  MESSAGE_TOO_LARGE: 'The message is larger than we read (64 MiB).',
  MAIL_EMPTY: 'Between two separators stands nothing.',
  MAIL_NO_HEADERS: 'The message has no header line.',
  MAIL_NO_SENDER: 'The message does not say who sent it.',
  MAIL_NO_DATE: 'Neither the message nor its separator has a date that can be believed.',
  MAIL_UNPARSABLE: 'The MIME structure cannot be read; the reason says where.',
  MAIL_PARSE_TIMEOUT: 'The message kept the parser busy for longer than any honest one would.',
} as const;

/** A code of an archive that cannot be read further. */
export type ArchiveErrorCode = keyof typeof ARCHIVE_ERRORS;
/** A code of a message that was set aside. */
export type MailFaultCode = Exclude<keyof typeof MAIL_ERRORS, 'MESSAGE_TOO_LARGE'>;
