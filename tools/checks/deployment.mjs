// Deployment files held to the code: every app can be built and is run by compose and by Fly with variables it knows.
import { parse as parseToml } from 'smol-toml';
import { parse as parseYaml } from 'yaml';
import { declaredVariables } from './documents.mjs';

/** Variables that others read: Node, the database's image, and LanceDB's S3 client. */
const FOREIGN_VARIABLES = /^(NODE_ENV|POSTGRES_[A-Z]+|AWS_[A-Z_]+)$/;

/** The longest that Fly waits after kill_signal, in seconds; its default of 5 would cut off a drain. */
const FLY_KILL_TIMEOUT_SECONDS = 300;

/** @type {import('./run.mjs').Check} */
export const deployment = {
  name: 'deployment',
  promise: 'Dockerfile, docker-compose.yml and fly/<app>.toml cover every service and set only variables that exist',
  find(tree) {
    const faults = [];
    const apps = tree.packages.filter((pkg) => pkg.type === 'app' && tree.exists(`${pkg.folder}/src/main.ts`));
    const known = declaredVariables(tree);
    const unknown = (variables) =>
      Object.keys(variables ?? {}).filter((name) => !known.has(name) && !FOREIGN_VARIABLES.test(name));

    const compose = parseYaml(tree.text('docker-compose.yml') ?? '', { merge: true })?.services ?? {};
    for (const [name, service] of Object.entries(compose)) {
      for (const variable of unknown(service.environment)) {
        faults.push(`docker-compose.yml sets ${variable} for ${name}, which no config.ts declares`);
      }
      for (const port of service.ports ?? []) {
        const isLocal = /^(127\.0\.0\.1|\$\{BIND_ADDRESS:-127\.0\.0\.1\}):/.test(port);
        if (!isLocal)
          faults.push(`docker-compose.yml opens port ${port} of ${name} to the world: put 127.0.0.1: before it`);
      }
    }
    const dockerfile = tree.text('Dockerfile') ?? '';
    for (const { folder } of apps) {
      const app = folder.split('/')[1];
      if (compose[app]?.build?.args?.APP !== app)
        faults.push(`docker-compose.yml needs a service ${app} built with APP: ${app}`);
      if (!dockerfile.includes(app)) faults.push(`Dockerfile: its HEALTHCHECK does not know ${app}`);
      const file = `fly/${app}.toml`;
      if (!tree.exists(file)) {
        faults.push(`${file} is missing`);
        continue;
      }
      const fly = parseToml(tree.text(file));
      if (fly.build?.args?.APP !== app) faults.push(`${file} needs [build.args] APP = "${app}"`);
      if (fly.kill_signal !== 'SIGTERM' || fly.kill_timeout !== FLY_KILL_TIMEOUT_SECONDS) {
        faults.push(
          `${file} needs kill_signal = "SIGTERM" and kill_timeout = ${FLY_KILL_TIMEOUT_SECONDS}: services drain on it`,
        );
      }
      if (!fly.http_service?.checks && !fly.checks) faults.push(`${file} has no health check`);
      for (const variable of unknown(fly.env)) faults.push(`${file} sets ${variable}, which no config.ts declares`);
    }
    return faults;
  },
  plants: [
    {
      files: {
        'docker-compose.yml':
          'services:\n  autoscaler:\n    build: { context: ., args: { APP: typo } }\n    ports: ["3200:3200"]\n    environment: { OLD_NAME: 1 }\n',
      },
      expects: 'sets OLD_NAME for autoscaler',
    },
    { files: {}, expects: 'opens port 3200:3200' },
    { files: {}, expects: 'needs a service autoscaler' },
    { files: { Dockerfile: 'FROM scratch # content-core\n' }, expects: 'does not know autoscaler' },
    { files: { 'fly/autoscaler.toml': null }, expects: 'fly/autoscaler.toml is missing' },
    {
      files: { 'fly/content-core.toml': 'kill_signal = "SIGINT"\n[build.args]\nAPP = "typo"\n[env]\nOLD_NAME = "1"\n' },
      expects: 'fly/content-core.toml needs [build.args]',
    },
    { files: {}, expects: 'fly/content-core.toml needs kill_signal' },
    { files: {}, expects: 'fly/content-core.toml has no health check' },
    { files: {}, expects: 'fly/content-core.toml sets OLD_NAME' },
  ],
};
