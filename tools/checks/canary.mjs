// A small sound tree, and the proof that a check can fail: on the sound tree it must find nothing, and each fault that
// is planted into it must be found. A rule that silently does not run is worse than no rule.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Tree } from './tree.mjs';

/**
 * What is wrong with the check itself, one sentence each; empty when it passes the sound tree and sees each plant.
 * @param {import('./run.mjs').Check} check
 */
export async function canaryFaults(check) {
  const sound = await withTree({}, (tree) => check.find(tree));
  if (sound.length > 0) return sound.map((fault) => `is reported in a sound tree: ${fault}`);
  const planted = await withTree(Object.assign({}, ...check.plants.map((plant) => plant.files)), (tree) =>
    check.find(tree),
  );
  return check.plants
    .filter((plant) => !planted.some((fault) => fault.includes(plant.expects)))
    .map((plant) => `a planted fault is not reported: ${plant.expects}`);
}

/** Writes the sound tree with `changes` on top (null removes a file) into a throw-away folder and hands it to `use`. */
async function withTree(changes, use) {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'atomo-canary-')));
  try {
    for (const [file, text] of Object.entries({ ...soundTree(), ...changes })) {
      if (text === null) continue;
      const target = path.join(root, file);
      fs.mkdirSync(path.dirname(target), { recursive: true });
      fs.writeFileSync(target, text);
    }
    linkWorkspace(root);
    return await use(new Tree(root));
  } finally {
    fs.rmSync(root, { recursive: true, force: true });
  }
}

/** Links packages the way `npm install` does in a workspace. */
function linkWorkspace(root) {
  const scope = path.join(root, 'node_modules/@atomo-cc');
  fs.mkdirSync(scope, { recursive: true });
  for (const room of ['apps', 'libs', 'services']) {
    for (const name of fs.readdirSync(path.join(root, room))) {
      fs.symlinkSync(path.join('../..', room, name), path.join(scope, name));
    }
  }
}

const json = (value) => `${JSON.stringify(value, null, 2)}\n`;

/** A package with its dependencies (own ones by short name), its tsconfig and what it exports. */
function pkg(folder, type, uses, { exports = ['.'], npm = {} } = {}) {
  const own = folder.split('/')[1];
  const entry = (room) => (room === '.' ? './src/index.ts' : `./src/${room.slice(2)}/index.ts`);
  const references = uses.map((use) => ({ path: `../../libs/${use}` }));
  return {
    [`${folder}/package.json`]: json({
      name: `@atomo-cc/${own}`,
      type: 'module',
      nx: { name: own, tags: [`type:${type}`] },
      ...(type === 'app' || type === 'e2e' || type === 'service'
        ? {}
        : { exports: Object.fromEntries(exports.map((room) => [room, { '@atomo-cc/source': entry(room) }])) }),
      dependencies: { ...Object.fromEntries(uses.map((use) => [`@atomo-cc/${use}`, '0.1.0'])), ...npm },
    }),
    ...(type === 'service' || type === 'e2e'
      ? {}
      : { [`${folder}/tsconfig.json`]: json({ extends: '../../tsconfig.base.json', references }) }),
  };
}

function flyFile(app) {
  return {
    [`fly/${app}.toml`]:
      `kill_signal = "SIGTERM"\nkill_timeout = 300\n[build.args]\nAPP = "${app}"\n` +
      '[env]\nCONTENT_CORE_PORT = "3000"\n[checks.live]\nport = 1\n',
  };
}

function soundTree() {
  return {
    'package.json': json({ name: 'sound', workspaces: ['apps/*', 'libs/*', 'services/*', 'tools/local'] }),
    'tsconfig.json': json({
      files: [],
      references: [
        ...['access', 'event-store', 'kernel', 'memory', 'platform', 'queues', 'schema', 'sdk-client', 'testing'].map(
          (lib) => ({ path: `libs/${lib}` }),
        ),
        { path: 'apps/autoscaler' },
        { path: 'apps/content-core' },
        { path: 'tools/local' },
      ],
    }),
    'tsconfig.base.json': json({
      compilerOptions: {
        composite: true,
        module: 'nodenext',
        customConditions: ['@atomo-cc/source'],
        strict: true,
        experimentalDecorators: true,
        types: [],
      },
    }),
    'node_modules/pg/package.json': json({ name: 'pg', version: '1.0.0', main: 'index.js' }),
    'node_modules/pg/index.js': 'module.exports = {};\n',
    'node_modules/built/package.json': json({ name: 'built', version: '1.0.0', main: 'dist/index.js' }),
    'node_modules/built/dist/index.js': 'module.exports = {};\n',

    ...pkg('libs/kernel', 'util', []),
    'libs/kernel/src/index.ts': "export { newId } from './ids.js';\nexport { KERNEL_ERRORS } from './errors.js';\n",
    'libs/kernel/src/ids.ts': "import { randomUUID } from 'node:crypto';\nexport const newId = () => randomUUID();\n",
    'libs/kernel/src/errors.ts': "export const KERNEL_ERRORS = { NOT_FOUND: 'It is not there.' } as const;\n",
    ...pkg('libs/schema', 'contract', ['kernel']),
    'libs/schema/src/index.ts': "export { model } from './model.js';\n",
    'libs/schema/src/model.ts': "import { newId } from '@atomo-cc/kernel';\nexport const model = () => newId();\n",
    ...pkg('libs/queues', 'contract', ['kernel', 'schema']),
    'libs/queues/src/index.ts': "export { QUEUE } from './queues.js';\n",
    'libs/queues/src/queues.ts': "import { model } from '@atomo-cc/schema';\nexport const QUEUE = model();\n",
    ...pkg('libs/platform', 'platform', ['kernel', 'queues'], {
      exports: ['./config', './postgres'],
      npm: { pg: '1.0.0' },
    }),
    'libs/platform/src/config/index.ts': "export { readEnv } from './env.js';\n",
    'libs/platform/src/config/env.ts':
      "import { str } from 'pg';\nexport const readEnv = () => ({ DATABASE_URL: str({}) , from: process.env });\n",
    'libs/platform/src/postgres/index.ts': "export { PostgresModule } from './postgres.module.js';\n",
    'libs/platform/src/postgres/postgres.module.ts':
      "import pg from 'pg';\nimport { readEnv } from '../config/index.js';\nimport { Global, Module } from 'pg';\n" +
      '@Global()\n@Module({})\nexport class PostgresModule {\n  pool = new pg.Pool(readEnv());\n}\n',
    ...pkg('libs/event-store', 'engine', ['kernel', 'queues', 'platform']),
    'libs/event-store/src/index.ts': "export { append } from './append.js';\n",
    'libs/event-store/src/append.ts':
      "import { PostgresModule } from '@atomo-cc/platform/postgres';\nexport const append = PostgresModule;\n",
    'libs/event-store/src/append.spec.ts':
      "import { given } from './testing/given.js';\nimport { clock } from '@atomo-cc/testing';\nexport const spec = [given, clock];\n",
    'libs/event-store/src/testing/given.ts':
      "import { append } from '../append.js';\nimport { clock } from '@atomo-cc/testing';\nexport const given = [append, clock];\n",
    ...pkg('libs/access', 'feature', ['kernel', 'event-store']),
    'libs/access/src/index.ts': "export { login } from './login.js';\n",
    'libs/access/src/login.ts':
      "import { append } from '@atomo-cc/event-store';\nimport type { Session } from './session.js';\n" +
      'export const login = (session: Session) => [append, session];\nexport type Login = typeof login;\n',
    'libs/access/src/session.ts': "import type { Login } from './login.js';\nexport type Session = { by: Login };\n",
    'libs/access/src/testing/given.ts': 'export const x = 1;\n',
    ...pkg('libs/memory', 'feature', ['kernel']),
    'libs/memory/src/index.ts':
      "import { newId } from '@atomo-cc/kernel';\nexport const x = newId;\nexport type X = string;\n",
    ...pkg('libs/testing', 'testing', ['kernel', 'platform']),
    'libs/testing/src/index.ts': "export { clock } from './clock.js';\n",
    'libs/testing/src/clock.ts':
      "import { readEnv } from '@atomo-cc/platform/config';\nexport const clock = [readEnv, process.env.ATOMO_TEST_DATABASE_URL];\n",
    ...pkg('libs/sdk-client', 'sdk', ['kernel', 'schema']),
    'libs/sdk-client/src/index.ts': "export { client } from './client.js';\n",
    'libs/sdk-client/src/client.ts': "import { model } from '@atomo-cc/schema';\nexport const client = model;\n",

    ...pkg('apps/content-core', 'app', ['kernel', 'platform', 'access']),
    'apps/content-core/src/main.ts': "import { AuthModule } from './auth/index.js';\nexport const app = AuthModule;\n",
    'apps/content-core/src/config.ts':
      "import { port } from '@atomo-cc/platform/config';\nexport const config = { CONTENT_CORE_PORT: port({ default: 3000 }) };\n",
    'apps/content-core/src/auth/index.ts': "export { AuthModule } from './auth.module.js';\nexport const x = 1;\n",
    'apps/content-core/src/auth/auth.module.ts':
      "import { login } from '@atomo-cc/access';\nimport { upload } from '../imports/index.js';\n" +
      'export class AuthModule {\n  constructor(readonly a: 1, readonly b: 1, readonly c: 1, readonly d: 1, readonly e: 1, readonly f: 1) {}\n  use = [login, upload];\n}\n',
    'apps/content-core/src/imports/index.ts': "export { upload } from './upload.js';\n",
    'apps/content-core/src/imports/upload.ts':
      "import { newId } from '@atomo-cc/kernel';\nexport const upload = newId;\n",
    ...pkg('apps/autoscaler', 'app', ['kernel']),
    'apps/autoscaler/src/main.ts': "import { newId } from '@atomo-cc/kernel';\nexport const app = newId;\n",
    'apps/autoscaler/src/index.ts': 'export const y = 1;\n',
    ...pkg('apps/e2e', 'e2e', ['kernel', 'testing']),
    'apps/e2e/src/boot.spec.ts':
      "import { newId } from '@atomo-cc/kernel';\nimport { clock } from '@atomo-cc/testing';\nexport const e2e = [newId, clock];\n",
    ...pkg('services/crm', 'service', ['schema']),
    'services/crm/schema.ts': "import { model } from '@atomo-cc/schema';\nexport default model();\n",
    ...pkg('tools/local', 'tool', ['kernel']),
    'tools/local/src/start.ts':
      "import { newId } from '@atomo-cc/kernel';\nexport const start = [newId, process.env];\n",
    'tools/bench/append.mjs': "import { append } from '@atomo-cc/event-store';\nexport const bench = append;\n",

    'ARCHITECTURE.md':
      'apps/content-core apps/autoscaler apps/e2e libs/access libs/event-store libs/kernel libs/memory libs/platform\n' +
      'libs/queues libs/schema libs/sdk-client libs/testing\n',
    Dockerfile: '# content-core autoscaler\n',
    'docker-compose.yml':
      'services:\n  content-core:\n    build: { context: ., args: { APP: content-core } }\n' +
      '    ports: ["127.0.0.1:3000:3000"]\n    environment: { CONTENT_CORE_PORT: 3000, AWS_REGION: auto }\n' +
      '  autoscaler:\n    build: { context: ., args: { APP: autoscaler } }\n',
    ...flyFile('content-core'),
    ...flyFile('autoscaler'),
    'docs/security.md': '| who | test |\n| --- | --- |\n| anyone | `src/append.spec.ts` |\n| she | the same |\n',
    'docs/errors.md': '| code | meaning |\n|---|---|\n| `NOT_FOUND` | It is not there. |\n',
    '.env.example': '# Postgres\nDATABASE_URL=postgres://…\n# CONTENT_CORE_PORT=3000\n',
  };
}
