import { cleanEnv, EnvError, makeValidator, str, type ValidatorSpec } from 'envalid';
import { CodedError } from '@atomo-cc/kernel';
import { type IsTrusted, trustedProxies } from './proxies.js';

/** What a service is stopped with before it opens anything. */
export const CONFIG_ERRORS = {
  CONFIG_INVALID: 'An environment variable is missing or wrong; the message names it, its fault and an example.',
} as const;

/** A Postgres URL. */
export const postgresUrl = makeValidator<string>((input) => requireUrl(input, ['postgres:', 'postgresql:']));
/** A Redis or Valkey URL; rediss: is Redis over TLS. */
export const redisUrl = makeValidator<string>((input) => requireUrl(input, ['redis:', 'rediss:']));
/** A whole number from 1 on. */
export const count = makeValidator<number>((input) => {
  if (!/^[1-9]\d{0,8}$/.test(input)) throw new EnvError('is not a whole number from 1 on');
  return Number(input);
});

/** A collector's http: or https: address, to which a path is added. */
export const collectorUrl = makeValidator<string>((input) => {
  const { username, password, search, hash } = new URL(requireUrl(input, ['http:', 'https:']));
  if (username || password) throw new EnvError('is a URL with a login in it: that belongs into the headers');
  if (search || hash) throw new EnvError('is a URL with something behind its path');
  return input;
});

/** Headers as OpenTelemetry writes them: `name=value,name=value`, values percent-encoded. */
export const headerList = makeValidator<Readonly<Record<string, string>>>((input) =>
  Object.fromEntries(
    input.split(',').map((pair) => {
      const [, name, value] = /^\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*([\x21-\x7e]*)\s*$/.exec(pair) ?? [];
      if (name === undefined || value === undefined || /%(?![\da-f]{2})/i.test(value)) {
        throw new EnvError('is no list of name=value with commas between and values percent-encoded');
      }
      return [name, decodeURIComponent(value)];
    }),
  ),
);

/** A share: 0 is none and 1 all. */
export const share = makeValidator<number>((input) => {
  if (!/^(?:0|1|0?\.\d+|1\.0+|0\.0+)$/.test(input)) throw new EnvError('is no number from 0 to 1');
  return Number(input);
});

/** Proxies whose word on their callers counts: addresses and networks with commas between, such as `10.0.0.0/8,fd00::1`. */
export const proxyList = makeValidator<IsTrusted>((input) => {
  try {
    return trustedProxies(input.split(',').map((entry) => entry.trim()));
  } catch {
    throw new EnvError('is no list of addresses and networks with commas between');
  }
});

/** Origins of web pages with commas between, such as `https://app.example.com`; no path, no wildcard. */
export const originList = makeValidator<readonly string[]>((input) => {
  const origins = input
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry !== '');
  for (const origin of origins) {
    if (!/^https?:[^*]+$/.test(origin) || !URL.canParse(origin) || new URL(origin).origin !== origin)
      throw new EnvError('is no list of origins such as https://app.example.com, without a path, with commas between');
  }
  return origins;
});

/** Where blobs are kept: empty is Postgres, else `parseBlobsUrl` says what is right. */
export const blobsUrl = makeValidator<string>((input) => {
  parseBlobsUrl(input);
  return input;
});

/** A place on S3-compatible storage. */
export interface BlobsLocation {
  readonly bucket: string;
  /** What every key starts with, without slashes around it; may be empty. */
  readonly prefix: string;
  /** Of a server that is not AWS. */
  readonly endpoint?: string;
  /** Without it AWS_REGION and its kin say it. */
  readonly region?: string;
  /** The bucket is named in the path, not in the host; most servers of one's own need it. */
  readonly forcePathStyle: boolean;
}

/** Names of buckets, by the rules of S3. */
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
/** The characters that S3 calls safe in keys, without empty segments. */
const PREFIX = /^(?:[\w!.*'()-]+(?:\/[\w!.*'()-]+)*)?$/;
const BLOBS_PARAMETERS = ['endpoint', 'region', 'forcePathStyle'];

/**
 * Reads `s3://bucket/prefix?endpoint=…&region=…&forcePathStyle=true`; only the bucket is required.
 * @throws EnvError that says what is wrong, without the value
 */
export function parseBlobsUrl(input: string): BlobsLocation {
  const { hostname, port, pathname, searchParams, username, password, hash } = new URL(requireUrl(input, ['s3:']));
  if (username || password) {
    throw new EnvError('is a URL with a login in it: keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY');
  }
  const prefix = pathname.replaceAll(/^\/|\/$/g, '');
  if (!BUCKET.test(hostname) || port) throw new EnvError('does not name a bucket as S3 allows it');
  if (!PREFIX.test(prefix))
    throw new EnvError("does not have a prefix of letters, digits and !_.*'()- between slashes");
  const names = [...searchParams.keys()];
  if (hash || names.some((name, at) => !BLOBS_PARAMETERS.includes(name) || names.indexOf(name) !== at)) {
    throw new EnvError(`is given something else than ${BLOBS_PARAMETERS.join(', ')}, or one of them twice`);
  }
  const [endpoint, region, pathStyle] = BLOBS_PARAMETERS.map((name) => searchParams.get(name));
  if (endpoint != null && !isServer(endpoint)) {
    throw new EnvError('does not have an http:// or https:// address without a login as its endpoint');
  }
  if (region != null && !/^[a-z0-9-]+$/.test(region)) throw new EnvError('does not have a region such as eu-central-1');
  if (pathStyle != null && !['true', 'false'].includes(pathStyle)) {
    throw new EnvError('does not say true or false for forcePathStyle');
  }
  return {
    bucket: hostname,
    prefix,
    ...(endpoint != null && { endpoint }),
    ...(region != null && { region }),
    forcePathStyle: pathStyle === 'true',
  };
}

function isServer(input: string): boolean {
  if (!URL.canParse(input)) return false;
  const { protocol, username, password, search, hash } = new URL(input);
  return ['http:', 'https:'].includes(protocol) && !(username || password || search || hash);
}

function requireUrl(input: string, protocols: string[]): string {
  let url: URL;
  try {
    url = new URL(input);
  } catch {
    throw new EnvError('is not a URL');
  }
  if (!protocols.includes(url.protocol)) throw new EnvError(`does not start with ${protocols[0]}//`);
  return input;
}

/** The variables that every service reads. */
export const serviceVariables = {
  ATOMO_MODE: str({
    choices: ['embedded', 'production'],
    default: 'production',
    desc: '`npm start` sets embedded: development login and secrets are allowed. Anywhere else a missing secret stops the boot.',
  }),
  HOST: str({ default: '127.0.0.1', example: '0.0.0.0', desc: 'The address the service listens on.' }),
  LOG_LEVEL: str({
    choices: ['trace', 'debug', 'info', 'warn', 'error', 'silent'],
    default: 'info',
    desc: 'The lowest level that is logged.',
  }),
  TRUSTED_PROXIES: proxyList({
    default: trustedProxies([]),
    example: '10.0.0.0/8',
    desc: 'The addresses of your own proxies, whose x-forwarded-for is believed. Empty: nobody is, and all who come through a proxy count as one caller.',
  }),
  DATABASE_URL: postgresUrl({
    example: 'postgres://atomo:secret@localhost:5432/atomo',
    desc: 'Postgres 15 or newer. The login must own the database: migrations and the two roles are made with it.',
  }),
  REDIS_URL: redisUrl({
    example: 'redis://localhost:6379',
    desc: 'Redis 6.2 or newer, or Valkey, with maxmemory-policy noeviction.',
  }),
  ATOMO_SUPERVISOR: str({
    default: '',
    example: '/tmp/atomo-1a2b3c.sock',
    desc: 'Set by `npm start`: the socket of the supervisor. When it closes, the service stops.',
  }),
  OTEL_EXPORTER_OTLP_ENDPOINT: collectorUrl({
    default: '',
    example: 'http://localhost:4318',
    desc: 'The OTLP/HTTP address of an OpenTelemetry collector that takes traces. Empty: nothing is recorded.',
  }),
  OTEL_EXPORTER_OTLP_HEADERS: headerList({
    default: {},
    example: 'x-api-key=secret',
    desc: 'What the collector wants to be sent with each export: name=value, with commas between, values percent-encoded.',
  }),
  OTEL_TRACES_SAMPLER_ARG: share({
    default: 1,
    example: '0.1',
    desc: 'The share of traces that is recorded, 0 to 1, where the caller has not decided it by its traceparent.',
  }),
};

/** The variables that say where memory lives, for the services that read or write it. */
export const memoryVariables = {
  MEMORY_URI: str({
    example: 's3://my-bucket/memory',
    desc: 'Where LanceDB keeps vectors and full text: s3://bucket/prefix, or a folder that all services share.',
  }),
  MEMORY_VOLUME_SHARED: str({
    choices: ['true', 'false'],
    default: 'false',
    desc: 'true says that a MEMORY_URI on local disk is a volume that every service mounts.',
  }),
};

/** The variable that says where uploads live, for the services that take or read them. */
export const blobVariables = {
  BLOBS_URL: blobsUrl({
    default: '',
    example: 's3://my-bucket/blobs?region=eu-central-1',
    desc: 'Where uploads are kept: empty is Postgres, s3://bucket/prefix S3-compatible storage. The AWS_… variables hold the keys.',
  }),
};

/** A port variable of a service. */
export const servicePort = makeValidator<number>((input) => {
  if (!/^[1-9]\d{0,4}$/.test(input) || Number(input) > 65_535) throw new EnvError('is no port, 1 to 65535');
  return Number(input);
});

/**
 * Reads the declared variables out of `environment`.
 * @throws CodedError CONFIG_INVALID with one line per fault: the variable, what is wrong with it, an example
 */
export function loadConfig<Specs extends Record<string, ValidatorSpec<unknown>>>(
  specs: Specs,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Readonly<{ [Name in keyof Specs]: Specs[Name] extends ValidatorSpec<infer Value> ? Value : never }> {
  // An empty string means "not set": compose files and .env files produce it for variables left blank.
  const given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value !== ''),
  );
  return cleanEnv(given, specs, {
    reporter: ({ errors }) => {
      const faults = Object.entries(errors).map(([name, error]) => {
        const spec = specs[name as keyof Specs];
        const shown = given[name] === undefined ? 'is not set' : faultOf(error as Error, spec?.choices);
        const example = spec?.example ?? spec?.choices?.join(' or ') ?? spec?.default;
        return `${name} ${shown}.${example === undefined ? '' : ` Example: ${name}=${example as string}`}`;
      });
      if (faults.length > 0) throw new CodedError('CONFIG_INVALID', faults.join('\n'));
    },
  }) as never;
}

/** Our own validators say what is wrong; those of envalid repeat the value, which may be a secret. */
function faultOf(error: Error, choices: readonly unknown[] | undefined): string {
  if (choices) return `is none of ${choices.join(', ')}`;
  return /^(is|does) /.test(error.message) ? error.message : 'has a value that it cannot have';
}

/**
 * The value of a secret. In embedded mode a missing one is `developmentValue`; elsewhere it stops the boot, so that nobody
 * runs in the open with a secret that is in this repository.
 * @throws CodedError CONFIG_INVALID
 */
export function requireSecret(
  mode: string,
  name: string,
  value: string,
  developmentValue: string,
  example: string,
): string {
  if (value !== '' && (mode === 'embedded' || value !== developmentValue)) return value;
  if (mode === 'embedded') return developmentValue;
  throw new CodedError(
    'CONFIG_INVALID',
    `${name} is not set, or is the development value. Example: ${name}=${example}`,
  );
}

/**
 * Refuses memory on one machine's disk where services run on several.
 * @throws CodedError CONFIG_INVALID
 */
export function requireReachableMemory(config: {
  ATOMO_MODE: string;
  MEMORY_URI: string;
  MEMORY_VOLUME_SHARED: string;
}): string {
  const isRemote = /^[a-z0-9+]+:\/\//i.test(config.MEMORY_URI) && !/^file:/i.test(config.MEMORY_URI);
  if (isRemote || config.ATOMO_MODE === 'embedded' || config.MEMORY_VOLUME_SHARED === 'true') return config.MEMORY_URI;
  throw new CodedError(
    'CONFIG_INVALID',
    'MEMORY_URI is a folder of one machine. Use s3://bucket/prefix, or set MEMORY_VOLUME_SHARED=true when every service mounts that folder.',
  );
}
