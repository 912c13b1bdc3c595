import { createHash, hkdfSync, randomBytes } from 'node:crypto';
import { jwtVerify, SignJWT } from 'jose';
import { apiError, type CodedError, isUuid, type TenantId, type UserId } from '@atomo-cc/kernel';

/** How long an access token lives, in seconds. Short, because whoever holds it is believed. */
export const ACCESS_TOKEN_SECONDS = 15 * 60;

const ISSUER = 'atomo';
const AUDIENCE = 'atomo-api';
const ALGORITHM = 'HS256';
/** No token of ours is longer; what is longer is refused before anything is computed over it. */
const LONGEST_TOKEN = 4_096;

/** What an access token says; whether it still holds is for the session's row to say. */
export interface AccessClaims {
  readonly userId: UserId;
  readonly tenantId: TenantId;
  readonly sessionId: string;
}

/** A signing key and the name (`kid`) that tokens carry, by which keys are told apart when they are rotated. */
export interface TokenKey {
  readonly kid: string;
  readonly bytes: Uint8Array;
}

/**
 * Derives the signing key from AUTH_SECRET: HKDF-SHA256 (RFC 5869) without salt, `atomo access token v1` as info, 32 bytes.
 * Other uses of the secret take another info and so get an unrelated key. The kid is a second derivation of 8 bytes, so it
 * tells nothing about the key. HKDF does not strengthen a guessable secret: use 32 random bytes or more.
 */
export function tokenKey(secret: string): TokenKey {
  const derive = (info: string, length: number) => new Uint8Array(hkdfSync('sha256', secret, '', info, length));
  return {
    kid: Buffer.from(derive('atomo access token v1 kid', 8)).toString('hex'),
    bytes: derive('atomo access token v1', 32),
  };
}

/** The key that signs, and all those whose tokens are good. */
export interface TokenKeys {
  readonly signing: TokenKey;
  readonly byKid: ReadonlyMap<string, TokenKey>;
}

/**
 * @param secret signs from now on
 * @param accepted further secrets whose tokens are good: those that signed before, and in a rolling deployment the next one
 */
export function tokenKeys(secret: string, accepted: readonly string[] = []): TokenKeys {
  const all = [secret, ...accepted].map(tokenKey);
  return { signing: all[0]!, byKid: new Map(all.map((key) => [key.kid, key])) };
}

/** Signs an access token for a session. `now` in milliseconds. */
export function issueAccessToken(key: TokenKey, claims: AccessClaims, now: number): Promise<string> {
  const issuedAt = Math.floor(now / 1000);
  return new SignJWT({ tid: claims.tenantId, sid: claims.sessionId })
    .setProtectedHeader({ alg: ALGORITHM, kid: key.kid, typ: 'at+jwt' })
    .setIssuer(ISSUER)
    .setAudience(AUDIENCE)
    .setSubject(claims.userId)
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + ACCESS_TOKEN_SECONDS)
    .sign(key.bytes);
}

/**
 * Reads an access token: the signature of one of our keys, algorithm, issuer, audience, type and time, and the three ids in it.
 * @throws CodedError UNAUTHENTICATED, the same for every fault, so that a forger learns nothing
 */
export async function readAccessToken(keys: TokenKeys, token: string, now: number): Promise<AccessClaims> {
  return (await verified(keys, token, now)).claims;
}

interface VerifiedToken {
  readonly claims: AccessClaims;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
}

async function verified(keys: TokenKeys, token: string, now: number): Promise<VerifiedToken> {
  if (token.length > LONGEST_TOKEN) throw invalidAccessToken();
  const { payload } = await jwtVerify(
    token,
    (header) => {
      const key = keys.byKid.get(header.kid ?? '');
      if (!key) throw invalidAccessToken();
      return key.bytes;
    },
    {
      algorithms: [ALGORITHM], // the header's word for it would let a forger choose
      issuer: ISSUER,
      audience: AUDIENCE,
      typ: 'at+jwt',
      requiredClaims: ['sub', 'tid', 'sid', 'iat', 'exp'],
      currentDate: new Date(now),
    },
  ).catch(() => {
    throw invalidAccessToken();
  });
  const { sub, tid, sid, exp } = payload;
  if (!isUuid(sub) || !isUuid(tid) || !isUuid(sid)) throw invalidAccessToken();
  return { claims: { userId: sub as UserId, tenantId: tid as TenantId, sessionId: sid }, expiresAt: exp! * 1000 };
}

/** Tokens that are remembered per process, of some hundred bytes each: those of all whose requests come within minutes. */
export const MOST_VERIFIED = 10_000;

/**
 * Reads access tokens, and computes over each only once: what was signed by us and has not run out is so the next time too.
 * Whether its session still holds is asked elsewhere, every time.
 */
export class AccessTokens {
  private readonly known = new Map<string, VerifiedToken>();

  constructor(private readonly keys: TokenKeys) {}

  /** As `readAccessToken`. @throws CodedError UNAUTHENTICATED */
  async read(token: string, now: number): Promise<AccessClaims> {
    let known = this.known.get(token);
    if (!known || now >= known.expiresAt) {
      this.known.delete(token);
      known = await verified(this.keys, token, now);
      this.known.set(token, known);
      // Those that were verified first, and so run out first.
      if (this.known.size > MOST_VERIFIED) this.known.delete(this.known.keys().next().value!);
    }
    return known.claims;
  }
}

/** What every request without a valid access token is answered. */
export function invalidAccessToken(): CodedError {
  return apiError(
    'UNAUTHENTICATED',
    'This needs a valid access token in the header "Authorization: Bearer …". Log in at /auth/login, or refresh the token.',
  );
}

/**
 * A refresh token, `family.secret`. The family stays for the life of its session and the secret is new with each refresh:
 * a right family with a secret that is not the newest can only be a token that was used before.
 */
export interface RefreshToken {
  readonly family: string;
  readonly secret: string;
}

const REFRESH_TOKEN = /^([\w-]{32})\.([\w-]{43})$/;

/** A new refresh token; with `family` the next one of that family. */
export function newRefreshToken(family = randomBytes(24).toString('base64url')): RefreshToken {
  return { family, secret: randomBytes(32).toString('base64url') };
}

/** The token as clients carry it. */
export function writeRefreshToken(token: RefreshToken): string {
  return `${token.family}.${token.secret}`;
}

/** Reads what a client sent; undefined when it cannot be a refresh token. */
export function readRefreshToken(value: string): RefreshToken | undefined {
  const [, family, secret] = REFRESH_TOKEN.exec(value) ?? [];
  return family !== undefined && secret !== undefined ? { family, secret } : undefined;
}

/** What is stored of a random secret. Plain SHA-256 is enough: 192 bits and more cannot be guessed, unlike a password. */
export function secretHash(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}
