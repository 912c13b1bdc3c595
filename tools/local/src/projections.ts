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
import { parseOptions } from './options.js';
import { Progress } from './progress.js';
import { Refusal, runCommand } from './refusal.js';

/** How often --wait looks. */
const WAIT_LOOK_MS = 250;
/** States in which nothing more happens to a build by itself. */
const ENDED = ['live', 'merged', 'retired', 'cancelled', 'failed', 'dropped'];

await runCommand(async () => {
  const given = parse();
  return onOperatorDatabase(databaseUrl(readConfig()), 'projections', (database) => run(database, given));
});
process.exit();

type Given = ReturnType<typeof parse>;
type Values = Given['values'];

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

async function run(database: SystemDatabase, { values, positionals }: Given): Promise<number> {
  const [action = 'list', projection, position, ...more] = positionals;
  const needsPosition = action === 'retry' || action === 'skip';
  if (
    more.length > 0 ||
    (position !== undefined) !== needsPosition ||
    (projection !== undefined) !== (action !== 'list')
  )
    throw usage();
  if (action === 'list') return list(await projectionStatus(database), values);
  const which = { projection: projection!, ...(values.build === undefined ? {} : { build: numberOf(values.build) }) };
  const allowDeadLetters = values['allow-dead-letters'] ?? false;
  const order = () => ({ projection: projection!, by: `operator:${os.userInfo().username}`, reason: reasonOf(values) });
  switch (action) {
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
      for (const { position, tenant, stream, type, error, attempts } of letters) {
        console.log(`${position}  ${type}  ${stream}  tenant ${tenant}  ${attempts} attempts: ${error}`);
      }
      return say(`${letters.length} open dead letters.`);
    }
    case 'retry':
      await askForRetry(database, which, positionOf(position!));
      return say(`A running content-core applies it again within two seconds; look with: letters ${projection}`);
    case 'skip':
      await skipDeadLetter(database, which, positionOf(position!), reasonOf(values));
      return say(`The event at position ${position} is closed without taking effect.`);
    default:
      throw usage();
  }
}

function list(projections: readonly ProjectionStatus[], values: Values): number {
  if (values.json) {
    console.log(
      JSON.stringify(projections, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value), 2),
    );
    return 0;
  }
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
  if (fault) parts.push(fault);
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

/** Says that a build has begun, or follows it to its end with --wait. */
async function begun(database: SystemDatabase, projection: string, number: number, values: Values): Promise<number> {
  if (!values.wait) return say(`Build ${number} of ${projection} is asked for. Follow it with: npm run projections`);
  const progress = new Progress(`build ${number} of ${projection}`);
  for (;;) {
    const status = (await projectionStatus(database)).find((each) => each.projection === projection);
    const build = status?.builds.find((each) => each.build === number);
    if (!build || ENDED.includes(build.state)) {
      progress.end();
      const isThere = build?.state === 'live' || build?.state === 'merged';
      say(build ? `${projection}: ${told(build)}` : `Build ${number} of ${projection} is gone.`);
      return isThere ? 0 : 1;
    }
    if (build.state === 'ready' && build.holdSwitch) {
      progress.end();
      return say(`Build ${number} has caught up and is held. Let it go live with: switch ${projection}`);
    }
    if (build.progress) {
      const { eventsDone, eventsToDo } = build.progress;
      progress.show(eventsDone, eventsToDo ?? 0, `${build.state}, ${progressText(build.progress)}`);
    }
    await sleep(WAIT_LOOK_MS);
  }
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

function usage(): Refusal {
  return new Refusal(
    'Say what to do, such as npm run projections -- rebuild NAME --reason TEXT; see npm run projections -- --help.',
  );
}
