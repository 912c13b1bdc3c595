import {
  blobVariables,
  loadConfig,
  memoryVariables,
  requireReachableMemory,
  requireSecret,
  servicePort,
  serviceVariables,
  str,
} from '@atomo-cc/platform/config';
import { CodedError } from '@atomo-cc/kernel';

/** A shorter secret can be guessed from one token: HS256 wants as many bits as its hash has (RFC 7518 §3.2). */
const MIN_AUTH_SECRET = 32;

const variables = {
  ...serviceVariables,
  ...memoryVariables,
  ...blobVariables,
  CONTENT_CORE_PORT: servicePort({ default: 3000, desc: 'The port of content-core: GraphQL, REST and login.' }),
  ATOMO_SERVICE: str({
    default: 'services/crm',
    desc: 'The folder whose schema.ts declares the models.',
  }),
  AUTH_SECRET: str({
    default: '',
    example: 'the output of: openssl rand -base64 48',
    desc: 'The secret that access tokens are signed with. Required outside `npm start`.',
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

/** The settings of content-core. @throws CodedError CONFIG_INVALID */
export function contentCoreConfig(environment?: Readonly<Record<string, string | undefined>>) {
  const config = loadConfig(variables, environment);
  const secret = (name: 'AUTH_SECRET' | 'ADMIN_EMAIL' | 'ADMIN_PASSWORD', development: string) =>
    requireSecret(config.ATOMO_MODE, name, config[name], development, variables[name].example ?? '');
  const authSecret = secret('AUTH_SECRET', 'development secret, never used outside npm start');
  if (authSecret.length < MIN_AUTH_SECRET) {
    throw new CodedError(
      'CONFIG_INVALID',
      `AUTH_SECRET has ${authSecret.length} characters; at least ${MIN_AUTH_SECRET} are needed. Example: AUTH_SECRET=${variables.AUTH_SECRET.example}`,
    );
  }
  return {
    ...config,
    MEMORY_URI: requireReachableMemory(config),
    AUTH_SECRET: authSecret,
    ADMIN_EMAIL: secret('ADMIN_EMAIL', 'admin@atomo.local'),
    ADMIN_PASSWORD: secret('ADMIN_PASSWORD', 'atomo-dev'),
  };
}
