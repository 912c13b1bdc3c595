import os from 'node:os';
import { sleep } from '@atomo-cc/kernel';
import {
  askForRetry,
  cancelBuild,
  openDeadLetters,
  pauseProjection,
  projectionStatus,
  requestBuild,
  resumeProjection,
  rollbackProjection,
  skipDeadLetter,
  switchBuild,
  type BuildStatus,
  type ProjectionStatus,
} from '@atomo-cc/event-store';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { readConfig } from './config.js';
import { databaseUrl, onOperatorDatabase, tenantOf } from './operator-database.js';
import { chooseAction, parseOptions } from './options.js';
import { Progress } from './progress.js';
import { Refusal, runCommand } from './refusal.js';

/** How often --wait looks. */
const WAIT_LOOK_MS = 250;
/** For how long --wait gives a running content-core time to take a build up: some beats of its runner. */
const TAKE_UP_MS = 15_000;
/** States in which nothing more happens to a build by itself. */
const ENDED = ['live', 'merged', 'retired', 'cancelled', 'failed', 'dropped'];

const EXAMPLE = 'npm run projections -- rebuild NAME --reason TEXT';
/** What each action takes. */
const ACTIONS = {
  list: { words: 0, options: ['json'] },
  rebuild: { words: 1, options: ['tenant', 'reason', 'hold', 'allow-dead-letters', 'wait'] },
  switch: { words: 1, options: ['allow-dead-letters'] },
  cancel: { words: 1, options: ['reason'] },
  rollback: { words: 1, options: ['reason', 'hold', 'wait'] },
  pause: { words: 1, options: ['build'] },
  resume: { words: 1, options: ['build'] },
  letters: { words: 1, options: ['build', 'json'] },
  retry: { words: 2, options: ['build'] },
  skip: { words: 2, options: ['build', 'reason'] },
} as const;

await runCommand(async () => {
  const { values, positionals } = parse();
  const given = positionals.length > 0 ? positionals : ['list'];
  const chosen = chooseAction('projections', ACTIONS, given, { options: values, example: EXAMPLE });
  return onOperatorDatabase(databaseUrl(readConfig()), 'projections', (database) => run(database, chosen, values));
});
process.exit();

type Values = ReturnType<typeof parse>['values'];

function parse() {
  return parseOptions('projections', process.argv.slice(2), {
    tenant: { type: 'string' },
    reason: { type: 'string' },
    build: { type: 'string' },
    hold: { type: 'boolean' },
    'allow-dead-letters': { type: 'boolean' },
    wait: { type: 'boolean' },
    json: { type: 'boolean' },
  });
}

async function run(
  database: SystemDatabase,
  { action, words }: { readonly action: keyof typeof ACTIONS; readonly words: readonly string[] },
  values: Values,
): Promise<number> {
  const [projection, position] = words;
  const which = { projection: projection!, ...(values.build === undefined ? {} : { build: numberOf(values.build) }) };
  const allowDeadLetters = values['allow-dead-letters'] ?? false;
  const order = () => ({ projection: projection!, by: `operator:${userName()}`, reason: reasonOf(values) });
  switch (action) {
    case 'list':
      return list(await projectionStatus(database), values);
    case 'rebuild': {
      const more = { tenant: tenantOf(values.tenant), holdSwitch: values.hold ?? false, allowDeadLetters };
      return begun(database, projection!, await requestBuild(database, { ...order(), ...more }), values);
    }
    case 'rollback':
      return begun(
        database,
        projection!,
        await rollbackProjection(database, { ...order(), holdSwitch: values.hold ?? false }),
        values,
      );
    case 'switch':
      await switchBuild(database, { projection: projection!, allowDeadLetters });
      return say(`The build of ${projection} goes live as soon as it has caught up.`);
    case 'cancel':
      await cancelBuild(database, order());
      return say(`The build of ${projection} is called off.`);
    case 'pause':
      await pauseProjection(database, which);
      return say(`${projection} is paused, on every instance, until it is resumed.`);
    case 'resume':
      await resumeProjection(database, which);
      return say(`${projection} goes on.`);
    case 'letters': {
      const letters = await openDeadLetters(database, which);
      if (values.json) return sayJson(letters);
      for (const { position, tenant, stream, type, error, attempts } of letters) {
        // Quoted: nobody vouches for an error's words, and each letter is one line.
        console.log(
          `${position}  ${type}  ${stream}  tenant ${tenant}  ${attempts} attempts: ${JSON.stringify(error)}`,
        );
      }
      return say(`${letters.length} open dead letters.`);
    }
    case 'retry':
      await askForRetry(database, which, positionOf(position!));
      return say(`A running content-core applies it again within two seconds; look with: letters ${projection}`);
    case 'skip':
      await skipDeadLetter(database, which, positionOf(position!), reasonOf(values));
      return say(`The event at position ${position} is closed without taking effect.`);
  }
}

function list(projections: readonly ProjectionStatus[], values: Values): number {
  if (values.json) return sayJson(projections);
  for (const { projection, builds } of projections) {
    console.log(projection);
    for (const build of builds) console.log(`  ${told(build)}`);
  }
  return projections.length > 0 ? 0 : say('No projection has run here yet: start Atomo.');
}

function told(build: BuildStatus): string {
  const { state, mode, lagEvents, lagMs, openDeadLetters, progress, error, tenant } = build;
  const parts = [`build ${build.build}, version ${build.version}, ${state}`];
  if (tenant) parts.push(`of tenant ${tenant}`);
  if (state === 'live' && mode === 'inline') parts.push('written by the commands');
  else if (build.shards.length > 0) parts.push(`${lagEvents} positions, ${Math.round(lagMs)} ms behind`);
  const halted = build.shards.filter((shard) => shard.state !== 'running').map((shard) => shard.state);
  if (halted.length > 0) parts.push([...new Set(halted)].join(' and '));
  if (progress) parts.push(progressText(progress));
  if (openDeadLetters > 0) parts.push(`${openDeadLetters} open dead letters`);
  const fault = error ?? build.shards.find(({ lastError }) => lastError)?.lastError;
  // Each build is one line, whatever an error says.
  if (fault) parts.push(fault.replaceAll(/\s+/g, ' '));
  return parts.join(', ');
}

function progressText({
  eventsDone,
  eventsToDo,
  eventsPerSecond,
  etaMs,
}: NonNullable<BuildStatus['progress']>): string {
  const of = eventsToDo === null ? '' : ` of ${eventsToDo}`;
  const eta = etaMs === null ? '' : `, ${Math.ceil(etaMs / 1000)} s left`;
  return `${eventsDone}${of} events, ${Math.round(eventsPerSecond)}/s${eta}`;
}

/** Says that a build is asked for, or follows it with --wait until it is live, or cannot get there by itself. */
async function begun(database: SystemDatabase, projection: string, number: number, values: Values): Promise<number> {
  if (!values.wait) return say(`Build ${number} of ${projection} is asked for. Follow it with: npm run projections`);
  const progress = new Progress(`build ${number} of ${projection}`);
  const from = performance.now();
  try {
    for (;;) {
      const status = (await projectionStatus(database)).find((each) => each.projection === projection);
      const build = status?.builds.find((each) => each.build === number);
      if (!build) throw new Refusal(`Build ${number} of ${projection} is gone.`);
      if (ENDED.includes(build.state) || isStuck(build)) {
        progress.end();
        const said = `${projection}: ${told(build)}`;
        if (build.state === 'live' || build.state === 'merged') return say(said);
        throw new Refusal(said);
      }
      if (build.state === 'ready' && build.holdSwitch) {
        progress.end();
        return say(`Build ${number} has caught up and is held. Let it go live with: switch ${projection}`);
      }
      if (build.state === 'requested' && performance.now() - from > TAKE_UP_MS) {
        throw new Refusal(
          `No running content-core has taken build ${number} of ${projection} up; it begins as soon as one with version ${build.version} of it runs.`,
        );
      }
      if (build.progress) {
        const { eventsDone, eventsToDo } = build.progress;
        progress.show(eventsDone, eventsToDo ?? 0, `${build.state}, ${progressText(build.progress)}`);
      }
      await sleep(WAIT_LOOK_MS);
    }
  } finally {
    progress.end();
  }
}

/** Whether a person has to do something before the build goes on. */
function isStuck({ state, shards, openDeadLetters, allowDeadLetters }: BuildStatus): boolean {
  const isRefused = state === 'ready' && openDeadLetters > 0 && !allowDeadLetters;
  return isRefused || shards.some((shard) => shard.state === 'stopped');
}

function reasonOf(values: Values): string {
  const said = values.reason?.trim() ?? '';
  if (said.length === 0 || said.length > 1_000) {
    throw new Refusal(
      'Say why, for those who ask later: --reason "rows were changed by hand" (1,000 characters at most).',
    );
  }
  return said;
}

function numberOf(given: string): number {
  if (!/^[1-9]\d{0,8}$/.test(given))
    throw new Refusal(`--build ${given} is no number of a build; npm run projections lists them.`);
  return Number(given);
}

function positionOf(given: string): bigint {
  if (!/^\d{1,18}$/.test(given)) throw new Refusal(`${given} is no position of an event; letters NAME lists them.`);
  return BigInt(given);
}

function say(sentence: string): number {
  console.log(sentence);
  return 0;
}

function sayJson(value: unknown): number {
  return say(JSON.stringify(value, (_, each: unknown) => (typeof each === 'bigint' ? String(each) : each), 2));
}

/** Who asks. In a container the user may have a number and no name. */
function userName(): string {
  try {
    return os.userInfo().username;
  } catch {
    return String(process.getuid?.() ?? 'unknown');
  }
}
