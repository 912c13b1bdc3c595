import { hash, parseOptions, verify } from '@node-rs/argon2';
import { compare } from 'bcryptjs';

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

/** A hash of bcrypt, with its cost: installations that are taken over bring them along. */
const BCRYPT = /^\$2[aby]\$(\d\d)\$[./A-Za-z\d]{53}$/;
/** The highest cost of bcrypt that is tried: 2¹⁴ rounds take about a second, each more doubles it, and all that on the event loop's time. */
const MAX_BCRYPT_COST = 14;

/**
 * True when `password` is the one that was hashed, by argon2 or bcrypt. Without a hash (no such user) it answers false after
 * the work of one of ours, so that the time of an answer does not tell which e-mail addresses have an account.
 */
export async function verifyPassword(stored: string | undefined, password: string): Promise<boolean> {
  const [, cost] = BCRYPT.exec(stored ?? '') ?? [];
  if (cost !== undefined) return Number(cost) <= MAX_BCRYPT_COST && compare(password, stored!);
  // What is no hash at all, such as that of a user who is to have no password, lets nobody in.
  const isRight = await verify(stored ?? NOBODYS_HASH, password).catch(() => false);
  return isRight && stored !== undefined;
}

/** True when a hash is not as `hashPassword` would make it today: of bcrypt, of another argon2, or with other parameters. */
export function isOutdated(stored: string): boolean {
  if (!stored.startsWith('$argon2id$v=19$')) return true;
  const { memoryCost, timeCost, parallelism, outputLen } = parseOptions(stored);
  const wanted = PASSWORD_HASHING;
  return (
    memoryCost !== wanted.memoryCost ||
    timeCost !== wanted.timeCost ||
    parallelism !== wanted.parallelism ||
    outputLen !== wanted.outputLen
  );
}
