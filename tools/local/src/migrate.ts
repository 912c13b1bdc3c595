import path from 'node:path';
import { readConfig } from './config.js';
import { onDatabase, runContentCore, serviceOf } from './content-core.js';
import { parseOptions } from './options.js';
import { Refusal, runCommand } from './refusal.js';

const USAGE = 'Say what to do: npm run migrate -- plan or apply; see npm run migrate -- --help.';

await runCommand(async () => {
  const { values, positionals } = parseOptions('migrate', process.argv.slice(2), {
    service: { type: 'string' },
    allow: { type: 'string', multiple: true },
  });
  const [action, ...more] = positionals;
  if ((action !== 'plan' && action !== 'apply') || more.length > 0) throw new Refusal(USAGE);
  const config = readConfig();
  const service = values.service === undefined ? serviceOf(config) : path.resolve(config.cwd, values.service);
  const answers = (values.allow ?? []).map((name) => `--allow=${name}`);
  return onDatabase(config, (url) => {
    const environment = { ATOMO_SERVICE: service };
    return runContentCore(config, url, { program: 'migrate', args: [action, ...answers], environment });
  });
});
process.exit();
