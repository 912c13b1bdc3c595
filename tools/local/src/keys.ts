import { readConfig } from './config.js';
import { onDatabase, runContentCore } from './content-core.js';
import { chooseAction, parseOptions } from './options.js';
import { runCommand } from './refusal.js';

/** What each action takes. */
const ACTIONS = { list: { words: 0, options: [] }, rotate: { words: 0, options: [] } } as const;

await runCommand(async () => {
  const args = process.argv.slice(2);
  const { values, positionals } = parseOptions('keys', args, {});
  const given = positionals.length > 0 ? positionals : ['list'];
  chooseAction('keys', ACTIONS, given, { options: values, example: 'npm run keys -- rotate' });
  const config = readConfig();
  return onDatabase(config, (url) => runContentCore(config, url, { program: 'keys', args }));
});
process.exit();
