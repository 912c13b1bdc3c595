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
  command: 'start' | 'import' | 'events' | 'projections' | 'migrate' | 'user' | 'tenants' | 'keys' | 'vault',
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

/** What each action of a command takes: so many words behind its own, and these options. */
export type Actions<Action extends string> = Readonly<
  Record<Action, { readonly words: number; readonly options: readonly string[] }>
>;

/**
 * The action that is meant, and the words behind it.
 * @param example of a right use, for who gives none
 * @throws Refusal for another action or number of words, and for an option that is nothing for it
 */
export function chooseAction<Action extends string>(
  command: 'events' | 'projections' | 'tenants' | 'keys' | 'vault',
  actions: Actions<Action>,
  [action, ...words]: readonly string[],
  given: { readonly options: Readonly<Record<string, unknown>>; readonly example: string },
): { readonly action: Action; readonly words: readonly string[] } {
  const isKnown = (word: string | undefined): word is Action => word !== undefined && Object.hasOwn(actions, word);
  if (!isKnown(action) || actions[action].words !== words.length) {
    throw new Refusal(`Say what to do: ${given.example}; see npm run ${command} -- --help.`);
  }
  const foreign = Object.keys(given.options).find((name) => !actions[action].options.includes(name));
  if (foreign) throw new Refusal(`--${foreign} is nothing for ${action}; see npm run ${command} -- --help.`);
  return { action, words };
}
