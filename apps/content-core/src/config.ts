import {
  blobVariables,
  loadConfig,
  memoryVariables,
  originList,
  requireReachableMemory,
  requireSecret,
  servicePort,
  serviceVariables,
  str,
} from '@atomo-cc/platform/config';
import { CodedError } from '@atomo-cc/kernel';

/** A shorter secret can be guessed from one token: HS256 wants as many bits as its hash has (RFC 7518 §3.2). */
const MIN_AUTH_SECRET = 32;
/** A shorter one can be guessed by whoever has the database: AES-256 wants 32 bytes, and a character has at most one. */
const MIN_ENCRYPTION_KEY = 32;

const variables = {
  ...serviceVariables,
  ...memoryVariables,
  ...blobVariables,
  CONTENT_CORE_PORT: servicePort({ default: 3000, desc: 'The port of content-core: GraphQL, REST and login.' }),
  ATOMO_SERVICE: str({
    default: 'services/crm',
    desc: 'The folder whose schema.ts declares the models.',
  }),
  CORS_ORIGINS: originList({
    default: [],
    example: 'https://app.example.com,https://admin.example.com',
    desc: 'The origins whose pages may call the API from a browser, with commas between. Empty: those of its own origin alone.',
  }),
  INTROSPECTION: str({
    choices: ['auto', 'on', 'off'],
    default: 'auto',
    desc: 'Whether callers may look at the GraphQL schema and browsers get GraphiQL. auto: under `npm start` alone.',
  }),
  TRUSTED_DOCUMENTS: str({
    default: '',
    example: 'persisted-documents.json',
    desc: 'The JSON of the documents that clients name by an id instead of writing them, from the folder of ATOMO_SERVICE on. Empty: there are none.',
  }),
  TRUSTED_DOCUMENTS_MODE: str({
    choices: ['allow', 'only'],
    default: 'allow',
    desc: 'What becomes of documents that are not in TRUSTED_DOCUMENTS. allow: they are carried out too. only: for Admin alone.',
  }),
  AUTH_SECRET: str({
    default: '',
    example: 'the output of: openssl rand -base64 48',
    desc: 'The secret that access tokens are signed with. Required outside `npm start`.',
  }),
  AUTH_SECRETS_ACCEPTED: str({
    default: '',
    example: 'the former AUTH_SECRET',
    desc: 'Further secrets whose access tokens are good, with commas between: the former one while AUTH_SECRET is being replaced.',
  }),
  ENCRYPTION_KEY: str({
    default: '',
    example: 'the output of: openssl rand -base64 48',
    desc: 'What the keys of personal data and of secrets are wrapped under. Without it they cannot be read: keep it, and apart from backups of the database. Required outside `npm start`.',
  }),
  ENCRYPTION_KEYS_ACCEPTED: str({
    default: '',
    example: 'the former ENCRYPTION_KEY',
    desc: 'Further keys under which there may still be keys of personal data or secrets, with commas between: the former one while ENCRYPTION_KEY is being replaced.',
  }),
  ADMIN_EMAIL: str({
    default: '',
    example: 'ada@example.com',
    desc: 'The login of the first administrator, made when there is no user yet. Required outside `npm start`.',
  }),
  ADMIN_PASSWORD: str({
    default: '',
    example: 'a long passphrase of your own',
    desc: 'The password of the first administrator. Changing it later changes nothing. Required outside `npm start`.',
  }),
};

type Secret = 'AUTH_SECRET' | 'ENCRYPTION_KEY' | 'ADMIN_EMAIL' | 'ADMIN_PASSWORD';

/** A secret of the environment, or the development's where that may be used. @throws CodedError CONFIG_INVALID */
function secretOf(
  config: { readonly ATOMO_MODE: Parameters<typeof requireSecret>[0] } & Readonly<Partial<Record<Secret, string>>>,
  name: Secret,
  development: string,
  least = 1,
): string {
  const example = variables[name].example ?? '';
  const value = requireSecret(config.ATOMO_MODE, name, config[name] ?? '', development, example);
  if (value.length >= least) return value;
  throw new CodedError(
    'CONFIG_INVALID',
    `${name} has ${value.length} characters; at least ${least} are needed. Example: ${name}=${example}`,
  );
}

function acceptedOf(name: 'AUTH_SECRETS_ACCEPTED' | 'ENCRYPTION_KEYS_ACCEPTED', list: string, least: number) {
  const secrets = list.split(',').filter((secret) => secret !== '');
  if (secrets.every((secret) => secret.length >= least)) return secrets;
  throw new CodedError(
    'CONFIG_INVALID',
    `A secret of ${name} has fewer than ${least} characters. Example: ${name}=${variables[name].example}`,
  );
}

function encryptionKeyOf(config: Parameters<typeof secretOf>[0]): string {
  const development = 'development key of personal data, never used elsewhere';
  return secretOf(config, 'ENCRYPTION_KEY', development, MIN_ENCRYPTION_KEY);
}

function acceptedKeysOf(list: string): readonly string[] {
  return acceptedOf('ENCRYPTION_KEYS_ACCEPTED', list, MIN_ENCRYPTION_KEY);
}

/** The settings of content-core. @throws CodedError CONFIG_INVALID */
export function contentCoreConfig(environment?: Readonly<Record<string, string | undefined>>) {
  const config = loadConfig(variables, environment);
  if (config.TRUSTED_DOCUMENTS_MODE === 'only' && config.TRUSTED_DOCUMENTS === '') {
    throw new CodedError(
      'CONFIG_INVALID',
      `TRUSTED_DOCUMENTS_MODE is only, and TRUSTED_DOCUMENTS names no file. Example: TRUSTED_DOCUMENTS=${variables.TRUSTED_DOCUMENTS.example}`,
    );
  }
  return {
    ...config,
    isIntrospected: config.INTROSPECTION === 'auto' ? config.ATOMO_MODE === 'embedded' : config.INTROSPECTION === 'on',
    MEMORY_URI: requireReachableMemory(config),
    AUTH_SECRET: secretOf(config, 'AUTH_SECRET', 'development secret, never used outside npm start', MIN_AUTH_SECRET),
    AUTH_SECRETS_ACCEPTED: acceptedOf('AUTH_SECRETS_ACCEPTED', config.AUTH_SECRETS_ACCEPTED, MIN_AUTH_SECRET),
    ENCRYPTION_KEY: encryptionKeyOf(config),
    ENCRYPTION_KEYS_ACCEPTED: acceptedKeysOf(config.ENCRYPTION_KEYS_ACCEPTED),
    ADMIN_EMAIL: secretOf(config, 'ADMIN_EMAIL', 'admin@atomo.local'),
    ADMIN_PASSWORD: secretOf(config, 'ADMIN_PASSWORD', 'atomo-dev'),
  };
}

/** The settings of who makes or changes the tables. @throws CodedError CONFIG_INVALID */
export function tablesConfig(environment?: Readonly<Record<string, string | undefined>>) {
  const { DATABASE_URL, ATOMO_SERVICE, ATOMO_MODE } = variables;
  return loadConfig({ DATABASE_URL, ATOMO_SERVICE, ATOMO_MODE }, environment);
}

/** What opens personal data: all that processes need which answer nobody. @throws CodedError CONFIG_INVALID */
export function encryptionConfig(environment?: Readonly<Record<string, string | undefined>>) {
  const { ATOMO_MODE, ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED } = variables;
  const config = loadConfig({ ATOMO_MODE, ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED }, environment);
  return {
    ENCRYPTION_KEY: encryptionKeyOf(config),
    ENCRYPTION_KEYS_ACCEPTED: acceptedKeysOf(config.ENCRYPTION_KEYS_ACCEPTED),
  };
}

/** What the deletion of a tenant needs besides: every place where something of a tenant is kept. @throws CodedError CONFIG_INVALID */
export function tenantPlacesConfig(environment?: Readonly<Record<string, string | undefined>>) {
  const { REDIS_URL, ATOMO_MODE } = variables;
  const config = loadConfig({ REDIS_URL, ATOMO_MODE, ...memoryVariables, ...blobVariables }, environment);
  return { ...config, MEMORY_URI: requireReachableMemory(config) };
}
