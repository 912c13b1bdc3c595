import fs from 'node:fs';
import path from 'node:path';
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { Refusal, reasonOf } from './refusal.js';

type Options = NonNullable<ParseArgsConfig['options']>;

/**
 * Parses the arguments of `npm <command> -- …`; `--help` shows tools/local/help/<command>.txt and ends the process.
 * @throws Refusal naming the argument that is not known
 */
export function parseOptions<Known extends Options>(
  command: 'start' | 'import' | 'events' | 'projections',
  args: string[],
  options: Known,
) {
  const config = {
    args,
    options: { ...options, help: { type: 'boolean', short: 'h' } as const },
    allowPositionals: command !== 'start',
  };
  let parsed: ReturnType<typeof parseArgs<typeof config>>;
  try {
    parsed = parseArgs(config);
  } catch (error) {
    throw new Refusal(
      `${reasonOf(error).split('. ')[0]!.replace(/\.$/, '')}; see npm ${command === 'start' ? command : `run ${command}`} -- --help.`,
    );
  }
  if ((parsed.values as { help?: boolean }).help) {
    process.stdout.write(fs.readFileSync(path.join(path.dirname(process.argv[1]!), '..', 'help', `${command}.txt`)));
    process.exit(0);
  }
  return parsed;
}
