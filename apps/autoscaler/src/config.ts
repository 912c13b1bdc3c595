import path from 'node:path';
import { CodedError } from '@atomo-cc/kernel';
import { count, loadConfig, requireSecret, servicePort, serviceVariables, str, url } from '@atomo-cc/platform/config';

/** The operators' token of the embedded mode. Anywhere else it is refused. */
const DEVELOPMENT_TOKEN = 'ops_dev';
/** Characters of another one: what 16 random bytes take at least, since nothing slows down who guesses. */
const SHORTEST_TOKEN = 22;

const variables = {
  ...serviceVariables,
  AUTOSCALER_PORT: servicePort({ default: 3200, desc: 'The port of autoscaler.' }),
  AUTOSCALER_TOKEN: str({
    default: '',
    example: 'ops_… (for instance ops_ and the output of: openssl rand -hex 24)',
    desc: "The operators' token for the autoscaler's endpoints. Required outside `npm start`.",
  }),
  AUTOSCALER_PROVIDER: str({
    choices: ['local', 'fly', 'none'],
    default: 'local',
    desc: 'Where workers run: as processes of this machine, as Fly Machines, or elsewhere (none: the autoscaler only watches).',
  }),
  MAX_WORKERS: count({ default: 3, desc: 'No more workers than this run at once.' }),
  SCALE_UP_QUEUE_DEPTH: count({ default: 5, desc: 'More waiting jobs than this call for another worker.' }),
  SCALE_DOWN_IDLE_MINUTES: count({
    default: 5,
    desc: 'A worker beyond the first that was idle for so many minutes is drained and stopped.',
  }),
  WORKER_PORT: servicePort({
    default: 3300,
    desc: 'The port of the first historical-sync-worker; further ones take free ports.',
  }),
  ATOMO_HOME: str({
    default: '',
    example: '/srv/atomo',
    desc: 'Provider local: workers write to logs/worker-<port>.log in it. Without it they write to the output of autoscaler.',
  }),
  FLY_API_TOKEN: str({
    default: '',
    example: 'the output of: fly tokens create deploy --app <your worker app>',
    desc: 'Provider fly: a token that may manage the Machines of FLY_WORKER_APP.',
  }),
  FLY_WORKER_APP: str({
    default: 'atomo-historical-sync-worker',
    desc: 'Provider fly: the app whose Machines are the workers.',
  }),
  FLY_WORKER_GROUP: str({ default: 'worker', desc: 'Provider fly: the process group of the workers in that app.' }),
  FLY_API_URL: url({
    default: 'https://api.machines.dev',
    example: 'http://_api.internal:4280',
    desc: 'Provider fly: the Machines API; the second form works inside a private network of Fly.',
  }),
};

/** What autoscaler is started with. */
export type AutoscalerConfig = ReturnType<typeof autoscalerConfig>;

/**
 * Reads and checks the environment.
 * @throws CodedError CONFIG_INVALID
 */
export function autoscalerConfig(environment: Readonly<Record<string, string | undefined>> = process.env) {
  const config = loadConfig(variables, environment);
  if (config.AUTOSCALER_PROVIDER === 'fly' && config.FLY_API_TOKEN === '') {
    const { example } = variables.FLY_API_TOKEN;
    throw new CodedError(
      'CONFIG_INVALID',
      `FLY_API_TOKEN is not set, and AUTOSCALER_PROVIDER is fly. Example: FLY_API_TOKEN=${example}`,
    );
  }
  const token = requireSecret(
    config.ATOMO_MODE,
    'AUTOSCALER_TOKEN',
    config.AUTOSCALER_TOKEN,
    DEVELOPMENT_TOKEN,
    variables.AUTOSCALER_TOKEN.example ?? '',
  );
  if (token.length < SHORTEST_TOKEN && token !== DEVELOPMENT_TOKEN) {
    throw new CodedError(
      'CONFIG_INVALID',
      `AUTOSCALER_TOKEN has ${token.length} characters; at least ${SHORTEST_TOKEN} are needed. Example: AUTOSCALER_TOKEN=${variables.AUTOSCALER_TOKEN.example}`,
    );
  }
  return {
    ...config,
    AUTOSCALER_TOKEN: token,
    /** In production the endpoints tell what runs where to operators only. */
    readsNeedToken: config.ATOMO_MODE !== 'embedded',
    workerLogs: config.ATOMO_HOME === '' ? undefined : path.resolve(config.ATOMO_HOME, 'logs'),
    workerEnvironment: handedOn(environment),
  };
}

/** The environment of a worker: ours, without what only the autoscaler needs to know. */
function handedOn(environment: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const withheld = ['AUTOSCALER_TOKEN', 'FLY_API_TOKEN'];
  return Object.fromEntries(
    Object.entries(environment).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && !withheld.includes(entry[0]),
    ),
  );
}
