import { workerConfig } from './config.js';

const NEEDED = {
  DATABASE_URL: 'postgres://atomo:x@localhost/atomo',
  REDIS_URL: 'redis://localhost',
  MEMORY_URI: 's3://bucket/memory',
};
const invalid = (message: string) =>
  expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining(message) });

test('production needs no secret, only where things are', () => {
  expect(workerConfig(NEEDED)).toMatchObject({
    ...NEEDED,
    ATOMO_MODE: 'production',
    WORKER_PORT: 3300,
    FLY_MACHINE_ID: '',
  });
  expect(workerConfig({ ...NEEDED, WORKER_PORT: '3301', FLY_MACHINE_ID: '148ed' })).toMatchObject({
    WORKER_PORT: 3301,
    FLY_MACHINE_ID: '148ed',
  });
});

test.each<[string, Record<string, string | undefined>]>([
  ['DATABASE_URL', { DATABASE_URL: undefined }],
  ['DATABASE_URL', { DATABASE_URL: 'https://localhost' }],
  ['REDIS_URL', { REDIS_URL: undefined }],
  ['MEMORY_URI', { MEMORY_URI: '' }],
  ['MEMORY_VOLUME_SHARED=true', { MEMORY_URI: './memory' }],
  ['MEMORY_VOLUME_SHARED=true', { MEMORY_URI: 'file:///var/memory' }],
  ['MEMORY_VOLUME_SHARED', { MEMORY_VOLUME_SHARED: 'yes' }],
  ['WORKER_PORT', { WORKER_PORT: '-1' }],
  ['WORKER_PORT', { WORKER_PORT: '3300.5' }],
])('%s is named when given %j', (name, environment) => {
  expect(() => workerConfig({ ...NEEDED, ...environment })).toThrow(invalid(name));
});

test.each<Record<string, string>>([
  { ATOMO_MODE: 'embedded', MEMORY_URI: '.atomo/memory' },
  { MEMORY_VOLUME_SHARED: 'true', MEMORY_URI: '/var/memory' },
  { MEMORY_URI: 's3://bucket/memory' },
])('memory may be where %j says', (environment) => {
  expect(workerConfig({ ...NEEDED, ...environment }).MEMORY_URI).toBe(environment['MEMORY_URI']);
});
