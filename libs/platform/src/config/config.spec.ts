import { isCodedError } from '@atomo-cc/kernel';
import {
  blobVariables,
  count,
  loadConfig,
  memoryVariables,
  parseBlobsUrl,
  postgresUrl,
  redisUrl,
  requireReachableMemory,
  requireSecret,
  servicePort,
  serviceVariables,
} from './config.js';
import { bool, str } from './index.js';

const RIGHT = { DATABASE_URL: 'postgres://a:b@h/d', REDIS_URL: 'redis://h:6379' };

/** The fault a boot would end with, or null. */
function faultOf(work: () => unknown): string | null {
  try {
    work();
    return null;
  } catch (error) {
    if (!isCodedError(error)) throw error;
    expect(error.code).toBe('CONFIG_INVALID');
    return error.message;
  }
}

describe('loadConfig', () => {
  it('gives defaults, and what is set', () => {
    expect({ ...loadConfig(serviceVariables, { ...RIGHT, LOG_LEVEL: 'debug' }) }).toEqual({
      ATOMO_MODE: 'production',
      HOST: '127.0.0.1',
      LOG_LEVEL: 'debug',
      ATOMO_SUPERVISOR: '',
      OTEL_EXPORTER_OTLP_ENDPOINT: '',
      OTEL_EXPORTER_OTLP_HEADERS: {},
      OTEL_TRACES_SAMPLER_ARG: 1,
      TRUSTED_PROXIES: expect.any(Function),
      ...RIGHT,
    });
  });

  it('reads where traces go', () => {
    const given = {
      OTEL_EXPORTER_OTLP_ENDPOINT: 'https://collector:4318/otlp',
      OTEL_EXPORTER_OTLP_HEADERS: 'x-key=a%20b%3D, authorization=Basic%20YQ==',
      OTEL_TRACES_SAMPLER_ARG: '0.25',
    };
    expect(loadConfig(serviceVariables, { ...RIGHT, ...given })).toMatchObject({
      OTEL_EXPORTER_OTLP_ENDPOINT: 'https://collector:4318/otlp',
      OTEL_EXPORTER_OTLP_HEADERS: { 'x-key': 'a b=', authorization: 'Basic YQ==' },
      OTEL_TRACES_SAMPLER_ARG: 0.25,
    });
  });

  it.each([
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318'],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://me:s3cret@collector:4318'],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://collector:4318?key=s3cret'],
    ['OTEL_EXPORTER_OTLP_HEADERS', 's3cret'],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'key=s3cret with blanks'],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'key=s3cret%'],
    ['OTEL_EXPORTER_OTLP_HEADERS', 'key=s3cret%ff'],
    ['OTEL_TRACES_SAMPLER_ARG', '1.5'],
    ['OTEL_TRACES_SAMPLER_ARG', '-1'],
    ['OTEL_TRACES_SAMPLER_ARG', '10%'],
  ])('refuses %s=%s, without repeating it', (name, value) => {
    const fault = faultOf(() => loadConfig(serviceVariables, { ...RIGHT, [name]: value }));
    expect(fault).toMatch(new RegExp(`^${name} (is|does|has) .*Example`));
    expect(fault).not.toContain('s3cret');
  });

  it('takes an empty variable for one that is not set', () => {
    expect(loadConfig(serviceVariables, { ...RIGHT, LOG_LEVEL: '', HOST: '' })).toMatchObject({
      LOG_LEVEL: 'info',
      HOST: '127.0.0.1',
    });
    expect(faultOf(() => loadConfig(serviceVariables, { ...RIGHT, DATABASE_URL: '' }))).toMatch(
      /^DATABASE_URL is not set\. Example: DATABASE_URL=postgres:/,
    );
  });

  it('lists every fault on a line of its own, with the name and an example', () => {
    const fault = faultOf(() =>
      loadConfig(
        { ...serviceVariables, PORT: servicePort({ default: 3000 }) },
        { ATOMO_MODE: 'dev', REDIS_URL: 'http://x', PORT: '70000' },
      ),
    )!;
    expect(fault.split('\n').sort()).toEqual([
      'ATOMO_MODE is none of embedded, production. Example: ATOMO_MODE=embedded or production',
      'DATABASE_URL is not set. Example: DATABASE_URL=postgres://atomo:secret@localhost:5432/atomo',
      'PORT is no port, 1 to 65535. Example: PORT=3000',
      'REDIS_URL does not start with redis://. Example: REDIS_URL=redis://localhost:6379',
    ]);
  });

  it('never repeats a value, which may be a secret', () => {
    const fault = faultOf(() =>
      loadConfig(
        { A: postgresUrl(), B: servicePort(), C: count(), D: bool(), E: redisUrl() },
        Object.fromEntries(['A', 'B', 'C', 'D', 'E'].map((name) => [name, 's3cret'])),
      )!,
    );
    expect(fault!.split('\n')).toHaveLength(5);
    expect(fault).not.toContain('s3cret');
  });

  it.each([
    [postgresUrl, 'postgresql://h/d', 'postgresql://h/d'],
    [postgresUrl, 'mysql://h/d', null],
    [postgresUrl, 'h:5432/d', null],
    [redisUrl, 'rediss://:p@h', 'rediss://:p@h'],
    [redisUrl, 'redis', null],
    [count, '3', 3],
    [count, '0', null],
    [count, '-1', null],
    [count, '1.5', null],
    [count, '1e3', null],
    [count, '9999999999', null],
    [servicePort, '65535', 65_535],
    [servicePort, '65536', null],
    [servicePort, '0', null],
    [servicePort, ' 3000', null],
    [servicePort, '0x10', null],
    [str, 'any text', 'any text'],
  ])('%# %j %j', (validator, given, expected) => {
    const load = () =>
      loadConfig({ NAME: (validator as typeof str)() }, { NAME: given }) as unknown as { NAME: unknown };
    if (expected === null) expect(faultOf(load)).toMatch(/^NAME (is|does|has)/);
    else expect(load().NAME).toBe(expected);
  });

  it('knows what every variable is for, and an example of those that must be set', () => {
    for (const spec of Object.values({ ...serviceVariables, ...memoryVariables, ...blobVariables }) as {
      desc?: string;
      example?: string;
      default?: unknown;
    }[]) {
      expect(spec.desc).toMatch(/\.$/);
      expect(spec.example ?? spec.default).toBeDefined();
    }
  });
});

describe('requireSecret', () => {
  it.each([
    ['embedded', '', 'dev'],
    ['embedded', 'dev', 'dev'],
    ['embedded', 'own', 'own'],
    ['production', 'own', 'own'],
    ['production', '', null],
    ['production', 'dev', null],
    ['anything else', '', null],
    ['anything else', 'dev', null],
  ])('in mode %s %j gives %j', (mode, value, expected) => {
    const read = () => requireSecret(mode, 'AUTH_SECRET', value, 'dev', 'openssl rand');
    if (expected === null)
      expect(faultOf(read)).toMatch(
        /^AUTH_SECRET is not set, or is the development value\. Example: AUTH_SECRET=openssl rand$/,
      );
    else expect(read()).toBe(expected);
  });
});

describe('requireReachableMemory', () => {
  it.each([
    ['production', 's3://bucket/memory', 'false', true],
    ['production', 's3+ddb://bucket/memory', 'false', true],
    ['production', 'gs://bucket', 'false', true],
    ['production', '/data/memory', 'true', true],
    ['production', '/data/memory', 'false', false],
    ['production', './memory', 'false', false],
    ['production', 'memory', 'false', false],
    ['production', 'file:///data/memory', 'false', false],
    ['production', 'FILE:///data/memory', 'false', false],
    ['embedded', '/data/memory', 'false', true],
    ['embedded', 'file:///data/memory', 'false', true],
  ])('in mode %s %s, shared %s: %s', (ATOMO_MODE, MEMORY_URI, MEMORY_VOLUME_SHARED, isTaken) => {
    const read = () => requireReachableMemory({ ATOMO_MODE, MEMORY_URI, MEMORY_VOLUME_SHARED });
    if (isTaken) expect(read()).toBe(MEMORY_URI);
    else expect(faultOf(read)).toMatch(/MEMORY_URI.*s3:\/\/.*MEMORY_VOLUME_SHARED=true/);
  });
});

describe('BLOBS_URL', () => {
  const load = (BLOBS_URL: string) => loadConfig(blobVariables, { BLOBS_URL }).BLOBS_URL;

  it('is empty when it is not set, which is Postgres', () => {
    expect(loadConfig(blobVariables, {}).BLOBS_URL).toBe('');
    expect(load('')).toBe('');
  });

  it.each([
    ['s3://a-bucket', { bucket: 'a-bucket', prefix: '', forcePathStyle: false }],
    ['s3://a-bucket/', { bucket: 'a-bucket', prefix: '', forcePathStyle: false }],
    ['s3://a.b1/some/where/', { bucket: 'a.b1', prefix: 'some/where', forcePathStyle: false }],
    ['s3://abc/x?region=auto', { bucket: 'abc', prefix: 'x', region: 'auto', forcePathStyle: false }],
    [
      's3://abc/x?endpoint=http://127.0.0.1:9000&region=eu-central-1&forcePathStyle=true',
      { bucket: 'abc', prefix: 'x', endpoint: 'http://127.0.0.1:9000', region: 'eu-central-1', forcePathStyle: true },
    ],
    [
      's3://abc?endpoint=https%3A%2F%2Fh%2Fstorage%2Fs3&forcePathStyle=false',
      { bucket: 'abc', prefix: '', endpoint: 'https://h/storage/s3', forcePathStyle: false },
    ],
  ])('%s', (url, location) => {
    expect(load(url)).toBe(url);
    expect(parseBlobsUrl(url)).toEqual(location);
  });

  it.each([
    ['a-bucket/s3cret', 'is not a URL'],
    ['https://a-bucket.s3.amazonaws.com', 'does not start with s3://'],
    ['file:///var/blobs', 'does not start with s3://'],
    ['s3://', 'does not name a bucket'],
    ['s3:///prefix', 'does not name a bucket'],
    ['s3://A_Bucket/x', 'does not name a bucket'],
    ['s3://ab/x', 'does not name a bucket'],
    ['s3://a-bucket:9000/x', 'does not name a bucket'],
    ['s3://key:s3cret@a-bucket/x', 'is a URL with a login in it'],
    ['s3://a-bucket/a//b', 'does not have a prefix'],
    ['s3://a-bucket/a b', 'does not have a prefix'],
    ['s3://a-bucket/ü', 'does not have a prefix'],
    ['s3://a-bucket#s3cret', 'is given something else'],
    ['s3://a-bucket?secret=s3cret', 'is given something else'],
    ['s3://a-bucket?region=a&region=b', 'is given something else'],
    ['s3://a-bucket?endpoint=localhost:9000', 'does not have an http'],
    ['s3://a-bucket?endpoint=', 'does not have an http'],
    ['s3://a-bucket?endpoint=http://k:s3cret@h', 'does not have an http'],
    ['s3://a-bucket?region=', 'does not have a region'],
    ['s3://a-bucket?region=eu%20west', 'does not have a region'],
    ['s3://a-bucket?forcePathStyle=1', 'does not say true or false'],
  ])('%s is refused: %s', (url, fault) => {
    const told = faultOf(() => load(url))!;
    expect(told).toContain(`BLOBS_URL ${fault}`);
    expect(told).toMatch(/ Example: BLOBS_URL=s3:[^\n]+$/);
    expect(told).not.toContain('s3cret');
  });
});

it('proxies that are trusted are addresses and networks, and none unless they are named', () => {
  const { TRUSTED_PROXIES } = serviceVariables;
  const read = (value: string) => loadConfig({ TRUSTED_PROXIES }, { TRUSTED_PROXIES: value }).TRUSTED_PROXIES;
  expect(['10.1.2.3', 'fd00::1', '11.0.0.1'].map(read('10.0.0.0/8, fd00::1'))).toEqual([true, true, false]);
  expect(read('')('127.0.0.1')).toBe(false);
  expect(() => read('10.0.0.0/8,everyone')).toThrow(
    /^TRUSTED_PROXIES is no list of addresses and networks with commas between\. Example: TRUSTED_PROXIES=10/,
  );
});
