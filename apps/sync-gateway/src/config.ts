import { CodedError } from '@atomo-cc/kernel';
import { count, loadConfig, requireSecret, servicePort, serviceVariables, str } from '@atomo-cc/platform/config';
import { MASTER_KEY_PREFIX } from '@atomo-cc/sync-protocol';

/** The master key of the embedded mode; `npm start` prints it. Anywhere else it is refused. */
const DEVELOPMENT_MASTER_KEY = 'sk_admin_dev';

/** How long a master key must be after its prefix: what 16 random bytes take at least. */
const SHORTEST_SECRET = 22;

const variables = {
  ...serviceVariables,
  SYNC_GATEWAY_PORT: servicePort({ default: 3100, desc: 'The port of sync-gateway.' }),
  GATEWAY_MASTER_KEY: str({
    default: '',
    example: 'sk_admin_8Jq2…',
    desc: 'The key for the admin routes of sync-gateway: sk_admin_ and at least 22 random characters.',
  }),
  SYNC_QUOTA_MIB: count({
    default: 10_240,
    example: '10240',
    desc: 'MiB of live files that a store may hold which has no quota of its own; its history is not counted.',
  }),
  SYNC_RETENTION_DAYS: count({
    default: 30,
    example: '30',
    desc: 'Days that old versions, deleted files and the log of a store stay; a device away for longer reads everything anew.',
  }),
  SYNC_OPS_PER_SECOND: count({
    default: 1_000,
    example: '1000',
    desc: 'Operations a second that sync-gateway takes of one key, five seconds of them at once.',
  }),
};

/** What sync-gateway is started with. */
export type GatewayConfig = ReturnType<typeof loadGatewayConfig>;

/**
 * Reads and checks the environment.
 * @throws CodedError CONFIG_INVALID
 */
export function loadGatewayConfig(environment?: Readonly<Record<string, string | undefined>>) {
  const config = loadConfig(variables, environment);
  const masterKey = requireSecret(
    config.ATOMO_MODE,
    'GATEWAY_MASTER_KEY',
    config.GATEWAY_MASTER_KEY,
    DEVELOPMENT_MASTER_KEY,
    'sk_admin_… (for instance sk_admin_ and the output of: openssl rand -hex 24)',
  );
  const isStrong =
    masterKey.startsWith(MASTER_KEY_PREFIX) && masterKey.length >= MASTER_KEY_PREFIX.length + SHORTEST_SECRET;
  if (!isStrong && masterKey !== DEVELOPMENT_MASTER_KEY) {
    throw new CodedError(
      'CONFIG_INVALID',
      `GATEWAY_MASTER_KEY is wrong: it must be ${MASTER_KEY_PREFIX} and at least ${SHORTEST_SECRET} random characters.`,
    );
  }
  return { ...config, GATEWAY_MASTER_KEY: masterKey };
}
