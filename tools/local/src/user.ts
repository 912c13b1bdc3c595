import { readConfig } from './config.js';
import { onDatabase, runContentCore } from './content-core.js';
import { tenantOf } from './operator-database.js';
import { parseOptions } from './options.js';
import { Refusal, runCommand } from './refusal.js';

await runCommand(async () => {
  const args = process.argv.slice(2);
  const { values, positionals } = parseOptions('user', args, {
    email: { type: 'string' },
    role: { type: 'string' },
    name: { type: 'string' },
    password: { type: 'string' },
    'new-password': { type: 'boolean' },
    tenant: { type: 'string' },
    disable: { type: 'boolean' },
    enable: { type: 'boolean' },
    reason: { type: 'string' },
  });
  if (!values.email || positionals.length > 0) {
    throw new Refusal('Say who: npm run user -- --email ada@example.com --role Manager; see npm run user -- --help.');
  }
  if (values.disable && values.enable) throw new Refusal('--disable and --enable are opposites: give one of them.');
  tenantOf(values.tenant);
  const config = readConfig();
  return onDatabase(config, (url) => runContentCore(config, url, { program: 'user', args }));
});
process.exit();
