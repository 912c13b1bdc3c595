/** Faults of the database that a person has to mend. */
export const POSTGRES_ERRORS = {
  DATABASE_UNREACHABLE:
    'Postgres does not answer at DATABASE_URL, or refuses the login. Check the URL and that Postgres runs.',
  DATABASE_TOO_OLD: 'The Postgres at DATABASE_URL is older than 15. Upgrade it, or point DATABASE_URL at a newer one.',
  LEASE_LOST: 'Another process took over the lease; this one stops the work it guarded. Nothing needs to be done.',
  TRANSACTION_ABORTED:
    'A statement of a transaction failed, and the code went on as if it had not. Nothing was kept; the log names the place.',
} as const;

/** The SQLSTATE of an error that Postgres answered, or null for any other error. */
export function sqlState(error: unknown): string | null {
  return answered(error)?.code ?? null;
}

/** The constraint that an error of Postgres names, such as `event_log_pkey`, or null. */
export function violatedConstraint(error: unknown): string | null {
  return answered(error)?.constraint ?? null;
}

/** What Postgres answered, whether the driver's error is at hand or TypeORM's around it. */
function answered(error: unknown): { readonly code: string; readonly constraint?: string } | null {
  const { driverError } = (error ?? {}) as { driverError?: unknown };
  const { code, severity, constraint } = (driverError ?? error ?? {}) as Record<string, unknown>;
  // Errors of sockets have codes as well (EPIPE); only Postgres says how severe it is.
  if (typeof code !== 'string' || typeof severity !== 'string') return null;
  return typeof constraint === 'string' ? { code, constraint } : { code };
}

/** SQLSTATEs of errors after which the server ends the connection: of connections, and of a server or operator that stops them. */
const CONNECTION_ENDS = /^(08|57P)/;

/** True for the error of a statement that failed with its connection. */
export function isConnectionLost(error: unknown): boolean {
  const state = sqlState(error);
  return state === null || CONNECTION_ENDS.test(state);
}
