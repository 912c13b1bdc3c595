import fs from 'node:fs';
import path from 'node:path';
import { cleanEnv, EnvError, makeValidator, port, str } from 'envalid';
import { Refusal } from './refusal.js';

const postgresUrl = makeValidator<string>((input) => requireUrl(input, ['postgres:', 'postgresql:']));
const redisUrl = makeValidator<string>((input) => requireUrl(input, ['redis:', 'rediss:']));

function requireUrl(input: string, protocols: string[]): string {
  // The value is never repeated in the message: it may hold a password.
  if (!URL.canParse(input) || !protocols.includes(new URL(input).protocol)) {
    throw new EnvError(`is not a URL that starts with ${protocols[0]}//`);
  }
  return input;
}

/** What `npm start`, `npm test` and `npm run import` read; the services read and check the rest themselves. */
const variables = {
  ATOMO_HOME: str({
    default: '.atomo',
    example: '/srv/atomo',
    desc: 'Folder of everything `npm start` keeps: data, logs.',
  }),
  ATOMO_SERVICE: str({ default: 'services/crm', desc: 'Folder with the schema.ts that content-core serves.' }),
  DATABASE_URL: postgresUrl({ default: '', desc: 'Postgres 15 or newer; without it embedded Postgres is started.' }),
  REDIS_URL: redisUrl({ default: '', desc: 'Redis or Valkey; without it an own redis-server is started.' }),
  CONTENT_CORE_PORT: port({ default: 3000, desc: 'Port of content-core.' }),
  SYNC_GATEWAY_PORT: port({ default: 3100, desc: 'Port of sync-gateway.' }),
  AUTOSCALER_PORT: port({ default: 3200, desc: 'Port of autoscaler.' }),
  WORKER_PORT: port({ default: 3300, desc: 'Port of the first historical-sync-worker; further ones take free ports.' }),
  HOST: str({ default: '127.0.0.1', example: '0.0.0.0', desc: 'The address the services listen on.' }),
  MEMORY_URI: str({ default: '', desc: 'Where LanceDB keeps its data; without it a folder in ATOMO_HOME.' }),
  AUTH_SECRET: str({ default: '', desc: 'Signs access tokens; without it a random one is kept in ATOMO_HOME.' }),
  ENCRYPTION_KEY: str({
    default: '',
    desc: 'Wraps the keys of personal data; without it a random one is kept in ATOMO_HOME.',
  }),
  ADMIN_EMAIL: str({ default: 'admin@atomo.local', desc: 'The first admin.' }),
  ADMIN_PASSWORD: str({ default: '', desc: 'Password of the first admin; without it the development password.' }),
  GATEWAY_MASTER_KEY: str({ default: '', desc: 'Master key of sync-gateway; without it the development key.' }),
  SYNC_KEY: str({ default: '', desc: 'Key of the store that `npm run vault` syncs with, instead of --key.' }),
  ATOMO_TEST_DATABASE_URL: postgresUrl({
    default: '',
    desc: 'A Postgres where tests may create databases; without it a throw-away one is started.',
  }),
  ATOMO_TEST_REDIS_URL: redisUrl({
    default: '',
    desc: 'A Redis that tests may fill and empty; without it a throw-away one is started.',
  }),
};

/** The configuration of a command: every value checked, folders absolute. */
export interface LocalConfig {
  /** The folder of the repository. */
  readonly root: string;
  /** ATOMO_HOME, absolute. */
  readonly home: string;
  /** The folder in which the user typed the command; relative paths of arguments start here. */
  readonly cwd: string;
  readonly service: string;
  readonly databaseUrl: string;
  readonly redisUrl: string;
  readonly ports: { contentCore: number; syncGateway: number; autoscaler: number; worker: number };
  readonly host: string;
  readonly memoryUri: string;
  readonly authSecret: string;
  readonly encryptionKey: string;
  readonly adminEmail: string;
  readonly adminPassword: string;
  readonly masterKey: string;
  readonly syncKey: string;
  readonly testDatabaseUrl: string;
  readonly testRedisUrl: string;
  /** The script of the npm that runs us, when one does. */
  readonly npm: string | undefined;
  /** The environment to hand on to child processes: ours, without what npm adds for its scripts. */
  readonly environment: Readonly<Record<string, string>>;
}

/**
 * Reads the environment, and `.env` beside package.json for what the environment leaves open.
 * @throws Refusal naming the variable, its fault and an example
 */
export function readConfig(environment: Readonly<Record<string, string | undefined>> = process.env): LocalConfig {
  const root = findRoot();
  if (environment === process.env && fs.existsSync(path.join(root, '.env')))
    process.loadEnvFile(path.join(root, '.env'));
  // An empty string means "not set": compose files and .env files produce it for variables left blank.
  const given = Object.fromEntries(Object.entries(environment).filter(([, value]) => value));
  const value = cleanEnv(given, variables, {
    reporter: ({ errors }) => {
      const faults = Object.entries(errors) as [keyof typeof variables, Error][];
      if (faults.length === 0) return;
      throw new Refusal(
        faults.map(([name, fault]) => `${name} is wrong: it ${fault.message}. ${variables[name].desc}`).join('\n'),
      );
    },
  });
  return {
    root,
    home: path.resolve(root, value.ATOMO_HOME),
    cwd: given.INIT_CWD ?? process.cwd(),
    service: path.resolve(root, value.ATOMO_SERVICE),
    databaseUrl: value.DATABASE_URL,
    redisUrl: value.REDIS_URL,
    ports: {
      contentCore: value.CONTENT_CORE_PORT,
      syncGateway: value.SYNC_GATEWAY_PORT,
      autoscaler: value.AUTOSCALER_PORT,
      worker: value.WORKER_PORT,
    },
    host: value.HOST,
    memoryUri: value.MEMORY_URI,
    authSecret: value.AUTH_SECRET,
    encryptionKey: value.ENCRYPTION_KEY,
    adminEmail: value.ADMIN_EMAIL,
    adminPassword: value.ADMIN_PASSWORD,
    masterKey: value.GATEWAY_MASTER_KEY,
    syncKey: value.SYNC_KEY,
    testDatabaseUrl: value.ATOMO_TEST_DATABASE_URL,
    testRedisUrl: value.ATOMO_TEST_REDIS_URL,
    npm: given.npm_execpath,
    environment: Object.fromEntries(
      Object.entries(given).filter((entry): entry is [string, string] => !/^(npm_|INIT_CWD$)/.test(entry[0])),
    ),
  };
}

/** Sets the two variables by which tests find the databases made for them; jest hands them on to its workers. */
export function publishTestUrls(databaseUrl: string, redisUrl: string): void {
  process.env.ATOMO_TEST_DATABASE_URL = databaseUrl;
  process.env.ATOMO_TEST_REDIS_URL = redisUrl;
}

/** The repository: the folder of the package named "atomo" above the running script or above the working directory. */
function findRoot(): string {
  for (const start of [path.dirname(path.resolve(process.argv[1] ?? '.')), process.cwd()]) {
    for (let folder = start; ; folder = path.dirname(folder)) {
      try {
        const found = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8')) as { name?: string };
        if (found.name === 'atomo') return folder;
      } catch {
        // No package.json here, or one that is none of ours: look further up.
      }
      if (folder === path.dirname(folder)) break;
    }
  }
  throw new Refusal(
    'This is not inside a clone of Atomo: no package.json named "atomo" was found. Run it from the clone.',
  );
}
