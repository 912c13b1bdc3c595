import { hash, verify } from '@node-rs/argon2';

/**
 * argon2id with 19 MiB, two passes and one lane: the first choice of the OWASP Password Storage Cheat Sheet. Hashing runs on
 * libuv's four threads, so a flood of logins takes 76 MiB at most and never blocks the event loop.
 */
export const PASSWORD_HASHING = {
  // argon2id is the package's default; its enum is a const one, which isolatedModules cannot name.
  memoryCost: 19_456,
  timeCost: 2,
  parallelism: 1,
  outputLen: 32,
} as const;

/** What an unknown user's password is checked against: the hash of 32 random bytes that nobody kept, made with PASSWORD_HASHING. */
export const NOBODYS_HASH =
  '$argon2id$v=19$m=19456,t=2,p=1$t1Hb/vAZhH807G9E8D0Asw$1eCksz/XGm16xR4xixvA/VRaCq0N40K8ajTlRrzw7JY';

/** Hashes a password for storage: a PHC string that names its parameters and carries its salt. */
export function hashPassword(password: string): Promise<string> {
  return hash(password, PASSWORD_HASHING);
}

/**
 * True when `password` is the one that was hashed. Without a hash (no such user) it answers false after the same work, so
 * that the time of an answer does not tell which e-mail addresses have an account.
 */
export async function verifyPassword(stored: string | undefined, password: string): Promise<boolean> {
  const isRight = await verify(stored ?? NOBODYS_HASH, password);
  return isRight && stored !== undefined;
}
