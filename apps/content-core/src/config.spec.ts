import { contentCoreConfig } from './config.js';

const NEEDED = {
  DATABASE_URL: 'postgres://atomo:x@localhost/atomo',
  REDIS_URL: 'redis://localhost',
  MEMORY_URI: 's3://bucket/memory',
};
const SECRETS = {
  AUTH_SECRET: 'a long secret of our own, made for nothing else',
  ENCRYPTION_KEY: 'a long key of our own, made for personal data',
  ADMIN_EMAIL: 'ada@example.com',
  ADMIN_PASSWORD: 'a long passphrase',
};
const invalid = (message: string) =>
  expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining(message) });

test('production with everything set', () => {
  expect(contentCoreConfig({ ...NEEDED, ...SECRETS })).toMatchObject({
    ...NEEDED,
    ...SECRETS,
    ATOMO_MODE: 'production',
    CONTENT_CORE_PORT: 3000,
    ATOMO_SERVICE: 'services/crm',
    HOST: '127.0.0.1',
  });
});

test('embedded mode has a development login and may keep memory in a folder', () => {
  expect(contentCoreConfig({ ...NEEDED, ATOMO_MODE: 'embedded', MEMORY_URI: '.atomo/memory' })).toMatchObject({
    ADMIN_EMAIL: 'admin@atomo.local',
    ADMIN_PASSWORD: 'atomo-dev',
    AUTH_SECRET: expect.stringContaining('development'),
    ENCRYPTION_KEY: expect.stringContaining('development'),
    MEMORY_URI: '.atomo/memory',
  });
});

test.each<[string, Record<string, string | undefined>]>([
  ['DATABASE_URL', { DATABASE_URL: undefined }],
  ['DATABASE_URL', { DATABASE_URL: 'mysql://localhost/atomo' }],
  ['REDIS_URL', { REDIS_URL: '' }],
  ['REDIS_URL', { REDIS_URL: 'localhost:6379' }],
  ['MEMORY_URI', { MEMORY_URI: undefined }],
  ['MEMORY_VOLUME_SHARED=true', { MEMORY_URI: '/var/memory' }],
  ['CONTENT_CORE_PORT', { CONTENT_CORE_PORT: '0' }],
  ['CONTENT_CORE_PORT', { CONTENT_CORE_PORT: '65536' }],
  ['CONTENT_CORE_PORT', { CONTENT_CORE_PORT: 'http' }],
  ['ATOMO_MODE', { ATOMO_MODE: 'development' }],
  ['LOG_LEVEL', { LOG_LEVEL: 'loud' }],
  ['AUTH_SECRET', { AUTH_SECRET: undefined }],
  ['AUTH_SECRET', { AUTH_SECRET: 'too short for HS256' }],
  ['ENCRYPTION_KEY', { ENCRYPTION_KEY: undefined }],
  ['ENCRYPTION_KEY', { ENCRYPTION_KEY: 'a key of only 31 characters now' }],
  ['ENCRYPTION_KEY', { ENCRYPTION_KEY: 'development key of personal data, never used elsewhere' }],
  ['ADMIN_EMAIL', { ADMIN_EMAIL: '' }],
  ['ADMIN_PASSWORD', { ADMIN_PASSWORD: undefined }],
  ['AUTH_SECRET', { AUTH_SECRET: 'development secret, never used outside npm start' }],
  ['ADMIN_EMAIL', { ADMIN_EMAIL: 'admin@atomo.local' }],
  ['ADMIN_PASSWORD', { ADMIN_PASSWORD: 'atomo-dev' }],
  ['TRUSTED_DOCUMENTS_MODE', { TRUSTED_DOCUMENTS_MODE: 'off' }],
  ['TRUSTED_DOCUMENTS names no file', { TRUSTED_DOCUMENTS_MODE: 'only' }],
])('production names %s when given %j', (name, environment) => {
  expect(() => contentCoreConfig({ ...NEEDED, ...SECRETS, ...environment })).toThrow(invalid(name));
});

test('a folder that every service mounts is fine in production', () => {
  const shared = { MEMORY_URI: '/var/memory', MEMORY_VOLUME_SHARED: 'true' };
  expect(contentCoreConfig({ ...NEEDED, ...SECRETS, ...shared }).MEMORY_URI).toBe('/var/memory');
});

test('no message holds a secret', () => {
  expect(() =>
    contentCoreConfig({
      ...NEEDED,
      ...SECRETS,
      CONTENT_CORE_PORT: 'x',
      DATABASE_URL: 'mysql://atomo:hidden@localhost',
    }),
  ).toThrow(expect.objectContaining({ message: expect.not.stringMatching(/hidden|passphrase|our own/) }));
});

describe('the edge', () => {
  const REST = {
    DATABASE_URL: 'postgres://a@b/c',
    REDIS_URL: 'redis://x',
    MEMORY_URI: '/tmp/m',
    ATOMO_MODE: 'embedded',
  };
  test.each([
    ['embedded', 'auto', true],
    ['embedded', 'off', false],
    ['embedded', undefined, true],
  ])('in mode %s with INTROSPECTION %s the schema can be looked at: %s', (ATOMO_MODE, INTROSPECTION, expected) => {
    expect(contentCoreConfig({ ...REST, ATOMO_MODE, INTROSPECTION }).isIntrospected).toBe(expected);
  });

  test('outside development it cannot, unless it is asked for', () => {
    const secret = 'x'.repeat(40);
    const production = {
      ...REST,
      ATOMO_MODE: 'production',
      MEMORY_URI: 's3://b/m',
      AUTH_SECRET: secret,
      ENCRYPTION_KEY: secret,
      ADMIN_EMAIL: 'a@b.example',
      ADMIN_PASSWORD: secret,
    };
    expect(contentCoreConfig(production).isIntrospected).toBe(false);
    expect(contentCoreConfig({ ...production, INTROSPECTION: 'on' }).isIntrospected).toBe(true);
  });

  test('origins are a list of origins', () => {
    expect(contentCoreConfig(REST).CORS_ORIGINS).toEqual([]);
    const given = { ...REST, CORS_ORIGINS: 'https://a.example, http://localhost:5173' };
    expect(contentCoreConfig(given).CORS_ORIGINS).toEqual(['https://a.example', 'http://localhost:5173']);
  });

  test.each(['*', 'https://*.example.com', 'https://a.example/', 'a.example', 'null', 'ftp://a.example'])(
    'CORS_ORIGINS=%s stops the start',
    (CORS_ORIGINS) => {
      expect(() => contentCoreConfig({ ...REST, CORS_ORIGINS })).toThrow(/CORS_ORIGINS/);
    },
  );
});
