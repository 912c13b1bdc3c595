/** Faults of the database that a person has to mend. */
export const POSTGRES_ERRORS = {
  DATABASE_UNREACHABLE:
    'Postgres does not answer at DATABASE_URL, or refuses the login. Check the URL and that Postgres runs.',
  DATABASE_TOO_OLD: 'The Postgres at DATABASE_URL is older than 15. Upgrade it, or point DATABASE_URL at a newer one.',
  LEASE_LOST: 'Another process took over the lease; this one stops the work it guarded. Nothing needs to be done.',
  TRANSACTION_ABORTED:
    'A statement of a transaction failed, and the code went on as if it had not. Nothing was kept; the log names the place.',
} as const;
