import { generateKeyPairSync } from 'node:crypto';
import { SignJWT } from 'jose';
import { DEFAULT_TENANT_ID, type UserId, uuidv7 } from '@atomo-cc/kernel';
import {
  ACCESS_TOKEN_SECONDS,
  invalidAccessToken,
  AccessTokens,
  issueAccessToken,
  MOST_VERIFIED,
  newRefreshToken,
  readAccessToken,
  readRefreshToken,
  tokenKey,
  tokenKeys,
  writeRefreshToken,
} from './tokens.js';

const NOW = Date.UTC(2026, 0, 2, 3, 4, 5);
const keys = tokenKeys('a secret of this test');
const key = keys.signing;
const claims = { userId: uuidv7() as UserId, tenantId: DEFAULT_TENANT_ID, sessionId: uuidv7() };

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const issue = () => issueAccessToken(key, claims, NOW);
const split = (token: string) => token.split('.') as [string, string, string];

/** A token that is right but for what is given; `undefined` leaves a claim out. */
function signed(
  change: { header?: object; claims?: Record<string, unknown>; secret?: Uint8Array } = {},
): Promise<string> {
  const seconds = NOW / 1000;
  const payload = {
    iss: 'atomo',
    aud: 'atomo-api',
    sub: claims.userId,
    tid: claims.tenantId,
    sid: claims.sessionId,
    iat: seconds,
    exp: seconds + 60,
    ...change.claims,
  };
  return new SignJWT(payload)
    .setProtectedHeader({ alg: 'HS256', kid: key.kid, typ: 'at+jwt', ...change.header })
    .sign(change.secret ?? key.bytes);
}

test('a token says what it was issued for, until its 15 minutes are over', async () => {
  const token = await issue();
  expect(await readAccessToken(keys, token, NOW)).toEqual(claims);
  expect(await readAccessToken(keys, token, NOW + ACCESS_TOKEN_SECONDS * 1000 - 1000)).toEqual(claims);
  await expect(readAccessToken(keys, token, NOW + ACCESS_TOKEN_SECONDS * 1000)).rejects.toMatchObject({
    code: 'UNAUTHENTICATED',
  });
});

describe('tokens that are read again', () => {
  test('are computed over once, until they run out', async () => {
    const tokens = new AccessTokens(keys);
    const token = await issue();
    const claimed = await tokens.read(token, NOW);
    expect(claimed).toEqual(claims);
    expect(await tokens.read(token, NOW + ACCESS_TOKEN_SECONDS * 1000 - 1000)).toBe(claimed);
    await expect(tokens.read(token, NOW + ACCESS_TOKEN_SECONDS * 1000)).rejects.toMatchObject({
      code: 'UNAUTHENTICATED',
    });
  });

  test('are taken for no other', async () => {
    const tokens = new AccessTokens(keys);
    const token = await issue();
    await tokens.read(token, NOW);
    const [header, payload, signature] = split(token);
    const forged = `${header}.${payload}.${signature.slice(0, -4)}AAAA`;
    await expect(tokens.read(forged, NOW)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    await expect(tokens.read(forged, NOW)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  test('are not remembered without end', async () => {
    const tokens = new AccessTokens(keys);
    const first = await issue();
    const claimed = await tokens.read(first, NOW);
    for (let n = 1; n <= MOST_VERIFIED; n += 1)
      await tokens.read(await issueAccessToken(key, claims, NOW + n * 1000), NOW);
    expect(await tokens.read(first, NOW)).not.toBe(claimed);
  });
});

test('the token that the refusals below are variations of is accepted', async () => {
  expect(await readAccessToken(keys, await signed(), NOW)).toEqual(claims);
});

const other = tokenKey('another secret');
const refused: Record<string, () => Promise<string> | string> = {
  'signed with another secret': () => signed({ secret: other.bytes }),
  'of a key we do not have': () => signed({ header: { kid: other.kid } }),
  'without a key id': () => signed({ header: { kid: undefined } }),
  'of another audience': () => signed({ claims: { aud: 'elsewhere' } }),
  'of another issuer': () => signed({ claims: { iss: 'elsewhere' } }),
  'of another type': () => signed({ header: { typ: 'JWT' } }),
  'that never ends': () => signed({ claims: { exp: undefined } }),
  'without a session': () => signed({ claims: { sid: undefined } }),
  'with a session that is no id': () => signed({ claims: { sid: "' or true --" } }),
  'of HS512 under our key': () => signed({ header: { alg: 'HS512' } }),
  'of RS256 under somebody’s own key pair': () =>
    new SignJWT({ tid: claims.tenantId, sid: claims.sessionId })
      .setProtectedHeader({ alg: 'RS256', kid: key.kid, typ: 'at+jwt' })
      .setIssuer('atomo')
      .setAudience('atomo-api')
      .setSubject(claims.userId)
      .setIssuedAt(NOW / 1000)
      .setExpirationTime(NOW / 1000 + 60)
      .sign(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey),
  'that brings its own key along': () => signed({ header: { jwk: { kty: 'oct', k: 'AAAA' } }, secret: other.bytes }),
  'of a user that is no id': () => signed({ claims: { sub: 'admin' } }),
  'that is not good yet': () => signed({ claims: { nbf: NOW / 1000 + 3_600 } }),
  'of alg none': async () => {
    const [, payload] = split(await signed());
    return `${part({ alg: 'none', kid: key.kid, typ: 'at+jwt' })}.${payload}.`;
  },
  'whose header says none over our signature': async () => {
    const [, payload, signature] = split(await signed());
    return `${part({ alg: 'none', kid: key.kid, typ: 'at+jwt' })}.${payload}.${signature}`;
  },
  'whose payload was changed': async () => {
    const [header, payload, signature] = split(await signed());
    const changed = { ...JSON.parse(Buffer.from(payload, 'base64url').toString()), sub: uuidv7() };
    return `${header}.${part(changed)}.${signature}`;
  },
  'cut short': async () => (await signed()).slice(0, -4),
  'without a signature': async () =>
    split(await signed())
      .slice(0, 2)
      .join('.'),
  'of endless length': () => 'a'.repeat(1_000_000),
  'of nothing': () => '',
};

test.each(Object.entries(refused))('a token %s is refused, in the words for all faults', async (_name, make) => {
  await expect(readAccessToken(keys, await make(), NOW)).rejects.toEqual(invalidAccessToken());
});

test('the same secret gives the same key everywhere, and its name gives nothing of it away', () => {
  expect(tokenKey('a secret of this test')).toEqual(key);
  expect(other.kid).not.toBe(key.kid);
  expect(Buffer.from(key.bytes).toString('hex')).not.toContain(key.kid);
});

test('a refresh token is read as it was written, and nothing else is taken for one', () => {
  const token = newRefreshToken();
  expect(readRefreshToken(writeRefreshToken(token))).toEqual(token);
  expect(newRefreshToken(token.family)).toMatchObject({ family: token.family });
  expect(newRefreshToken(token.family).secret).not.toBe(token.secret);
  for (const wrong of [
    '',
    '.',
    `${writeRefreshToken(token)}x`,
    token.secret,
    `${token.family}.`,
    `x${writeRefreshToken(token)}`,
  ]) {
    expect(readRefreshToken(wrong)).toBeUndefined();
  }
});
