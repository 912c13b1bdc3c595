import fs from 'node:fs';
import path from 'node:path';
import { backoffMs, isCodedError, sleep } from '@atomo-cc/kernel';
import type { ConflictPolicy, EngineOptions } from '@atomo-cc/sdk-sync';
import { Vault, type VaultOptions } from '@atomo-cc/sdk-sync/node';
import { readConfig, type LocalConfig } from './config.js';
import { chooseAction, parseOptions } from './options.js';
import { Refusal, runCommand } from './refusal.js';
import type { RunningSystem } from './supervisor.js';
import { sentence, VaultReport } from './vault-report.js';

const EXAMPLE = 'npm run vault -- sync DIR --key KEY';
const ACTIONS = {
  sync: {
    words: 1,
    options: ['server', 'key', 'store', 'once', 'watch', 'exclude', 'on-conflict', 'deletes', 'device'],
  },
} as const;
const POLICIES: readonly ConflictPolicy[] = ['copy', 'markers', 'mine', 'theirs'];
const DELETES: readonly EngineOptions['massDelete'][] = ['ask', 'allow', 'restore'];
/** A second Ctrl-C, or this long after the first, ends at once; the journal goes on from wherever that is. */
const STOP_LIMIT_MS = 5_000;
const RETRY = { firstMs: 1_000, maxMs: 30_000 } as const;
const EXIT_INTERRUPTED = 130;
const READ_ONLY = 'The key may only read: what others change comes here, what is changed here is not sent.';
await runCommand(async () => {
  const { values, positionals } = parseOptions('vault', process.argv.slice(2), {
    server: { type: 'string' },
    key: { type: 'string' },
    store: { type: 'string' },
    once: { type: 'boolean' },
    watch: { type: 'boolean' },
    exclude: { type: 'string', multiple: true },
    'on-conflict': { type: 'string' },
    deletes: { type: 'string' },
    device: { type: 'string' },
  });
  const { words } = chooseAction('vault', ACTIONS, positionals, { options: values, example: EXAMPLE });
  if (values.once && values.watch) throw new Refusal('Choose one of --once and --watch.');
  const config = readConfig();
  const options: VaultOptions = {
    folder: path.resolve(config.cwd, words[0]!),
    server: serverUrl(config, values.server),
    key: keyOf(values.key ?? config.syncKey),
    exclude: values.exclude ?? [],
    onConflict: oneOf('on-conflict', POLICIES, values['on-conflict'] ?? 'copy'),
    massDelete: oneOf('deletes', DELETES, values.deletes ?? 'ask'),
    ...(values.store !== undefined && { store: values.store }),
    ...(values.device !== undefined && { device: values.device }),
  };
  try {
    return await (values.once ? once(options) : keep(options));
  } catch (error) {
    if (isCodedError(error)) throw new Refusal(`${sentence(error.message)} (${error.code})`);
    throw error;
  }
});
process.exit();

/** One comparison of both sides. Fails when something waits for the user. */
async function once(options: VaultOptions): Promise<number> {
  const told = new VaultReport(true);
  const vault = await Vault.open(options, told.listener);
  if (!vault.canWrite) console.log(READ_ONLY);
  const interrupted = new AbortController();
  onInterrupt(() => interrupted.abort());
  try {
    let report = await vault.once();
    for (let again = 0; !report.isSettled && again < 3; again++) report = await vault.once();
    told.summary(report);
    return report.isSettled && report.heldDeletes.length === 0 ? 0 : 1;
  } catch (error) {
    if (interrupted.signal.aborted) return EXIT_INTERRUPTED;
    throw error;
  } finally {
    told.end();
    await vault.close();
  }

  function onInterrupt(stop: () => void): void {
    interruptible(() => {
      stop();
      void vault.close();
    });
  }
}

/** Until Ctrl-C. */
async function keep(options: VaultOptions): Promise<number> {
  const stopped = new AbortController();
  let vault: Vault | undefined;
  interruptible(() => {
    stopped.abort();
    void vault?.close();
  });
  const told = new VaultReport(false);
  for (let failures = 1; !vault && !stopped.signal.aborted; failures++) {
    try {
      vault = await Vault.open(options, told.listener);
    } catch (error) {
      if (!isCodedError(error) || error.code !== 'SYNC_OFFLINE') throw error;
      told.offline(`${error.message} Is it running? Trying again.`);
      await sleep(backoffMs(failures, RETRY), stopped.signal);
    }
  }
  if (!vault) return EXIT_INTERRUPTED;
  console.log(`${vault.folder.root} is kept the same as the store at ${options.server}. Ctrl-C stops it.`);
  if (!vault.canWrite) console.log(READ_ONLY);
  try {
    await vault.watch(stopped.signal);
  } finally {
    told.end();
    await vault.close();
  }
  console.log('Stopped. What was not synced yet goes on with the next start.');
  return 0;
}

function interruptible(stop: () => void): void {
  let isStopping = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (isStopping) return;
      isStopping = true;
      setTimeout(() => process.exit(EXIT_INTERRUPTED), STOP_LIMIT_MS).unref();
      stop();
    });
  }
}

function serverUrl(config: LocalConfig, given: string | undefined): string {
  if (given !== undefined) {
    if (!URL.canParse(given) || !/^https?:$/.test(new URL(given).protocol)) {
      throw new Refusal(`--server ${given} is not an address such as http://127.0.0.1:3100.`);
    }
    return new URL(given).origin;
  }
  try {
    const running = JSON.parse(fs.readFileSync(path.join(config.home, 'run.json'), 'utf8')) as RunningSystem;
    return running.services['sync-gateway']!.url;
  } catch {
    throw new Refusal('Atomo is not running here: start it with npm start, or name the gateway with --server.');
  }
}

function keyOf(given: string): string {
  if (given === '')
    throw new Refusal(
      'Name the key of the store with --key, or in SYNC_KEY, which other users of the machine do not see.',
    );
  if (!given.startsWith('sk_store_')) {
    throw new Refusal(
      'A key of a store begins with sk_store_; the README says how to make one. Master keys do not open stores.',
    );
  }
  return given;
}

function oneOf<Value extends string>(option: string, allowed: readonly Value[], given: string): Value {
  const found = allowed.find((each) => each === given);
  if (found === undefined) throw new Refusal(`--${option} is one of ${allowed.join(', ')}, not ${given}.`);
  return found;
}
