// The process behind `npm run tenants`: lists, makes, suspends, resumes and deletes tenants, says what they may, and ends. It is an operator's: no
// request does any of this. Admins of the default tenant may order all but deletion by GraphQL (tenants/tenants-api.ts). A process of its own because what is to be deleted is known to content-core alone.
import readline from 'node:readline/promises';
import { inspect, parseArgs } from 'node:util';
import {
  accessEntities,
  createTenant,
  findTenant,
  listTenants,
  setLimit,
  setPlan,
  setSuspended,
  type Standing,
  standingsOf,
  type Tenant,
} from '@atomo-cc/access';
import { CodedError, isCodedError } from '@atomo-cc/kernel';
import { SemanticStore } from '@atomo-cc/memory';
import { openBlobStore } from '@atomo-cc/platform/blobs';
import { migrate, openAppDatabase, openSystemDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { JobQueues } from '@atomo-cc/platform/queues';
import { openRedis } from '@atomo-cc/platform/redis';
import { tablesConfig, tenantPlacesConfig } from './config.js';
import { contentCoreMigrations } from './migrations.js';
import { operator } from './operator.js';
import { removeTenant } from './tenants/index.js';

try {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      slug: { type: 'string' },
      plan: { type: 'string' },
      confirm: { type: 'string' },
      reason: { type: 'string' },
    },
  });
  const { DATABASE_URL: url } = tablesConfig();
  await migrate(url, contentCoreMigrations);
  const system = await openSystemDatabase({ url, service: 'atomo tenants', entities: accessEntities, poolSize: 2 });
  try {
    await run(system, url, positionals, values);
  } finally {
    await system.close();
  }
} catch (error) {
  process.stderr.write(`${isCodedError(error) ? error.message : inspect(error)}\n`);
  process.exitCode = 1;
}

interface Values {
  readonly slug?: string | undefined;
  readonly plan?: string | undefined;
  readonly confirm?: string | undefined;
  readonly reason?: string | undefined;
}

async function run(
  system: SystemDatabase,
  url: string,
  [action, which = '', wanted = '']: readonly string[],
  values: Values,
): Promise<void> {
  const by = operator(values.reason);
  switch (action) {
    case 'create':
      return say('Made', await createTenant(system, { name: which, slug: values.slug, plan: values.plan }, by));
    case 'suspend':
      return say('Suspended, within 5 s everywhere:', await setSuspended(system, which, true, by));
    case 'resume':
      return say('Resumed', await setSuspended(system, which, false, by));
    case 'plan':
      return say('Changed, within 5 s everywhere:', await setPlan(system, which, wanted, by));
    case 'limit':
      return sayQuotas(system, await setLimit(system, which, wanted, by));
    case 'quota':
      return sayQuotas(system, await findTenant(system, which));
    case 'delete':
      return remove(system, url, which, values);
    default:
      for (const tenant of await listTenants(system)) say('', tenant);
  }
}

async function remove(system: SystemDatabase, databaseUrl: string, which: string, values: Values): Promise<void> {
  const { slug, name } = await findTenant(system, which);
  const typed =
    values.confirm ?? (await ask(`All that is kept of ${name} is deleted for good. To go on, type ${slug}: `));
  if (typed !== slug) throw new CodedError('CONFLICT', `Nothing was deleted: that is not ${slug}.`);
  const { REDIS_URL, MEMORY_URI, BLOBS_URL } = tenantPlacesConfig();
  const redis = openRedis(REDIS_URL, 'command', () => undefined);
  const app = await openAppDatabase({ url: databaseUrl, service: 'atomo tenants', poolSize: 2 });
  const queues = new JobQueues(redis);
  const memory = new SemanticStore({ uri: MEMORY_URI });
  try {
    await redis.ping().catch(() => {
      throw new CodedError('CONFLICT', 'Nothing was deleted: Redis does not answer, and jobs may be kept there.');
    });
    const blobs = await openBlobStore(BLOBS_URL, app);
    try {
      const places = { databaseUrl, system, queues, blobs, memory };
      await removeTenant(places, slug, operator(values.reason), (line) => void process.stdout.write(`${line}\n`));
    } finally {
      blobs.close();
    }
  } finally {
    await Promise.all([queues.close(), memory.close(), app.close()]);
    redis.disconnect();
  }
  process.stdout.write(`Deleted ${slug}.\n`);
}

/** @throws CodedError CONFLICT where nobody can answer */
async function ask(question: string): Promise<string> {
  if (!process.stdin.isTTY)
    throw new CodedError('CONFLICT', 'Nothing was deleted: say --confirm and the slug of the tenant.');
  const terminal = readline.createInterface({ input: process.stdin, output: process.stdout });
  try {
    return (await terminal.question(question)).trim();
  } finally {
    terminal.close();
  }
}

async function sayQuotas(system: SystemDatabase, { id, slug }: Tenant): Promise<void> {
  const { plan, standings } = await system.transaction((tx) => standingsOf(tx, id));
  const rows = [['', 'used', 'reserved', 'limit', ''], ...standings.map(cellsOf)];
  process.stdout.write(`${slug}, plan ${plan}\n`);
  for (const [name, used, reserved, limit, note] of rows)
    process.stdout.write(
      `${`${name!.padEnd(18)}${used!.padStart(14)}${reserved!.padStart(14)}${limit!.padStart(14)}  ${note}`.trimEnd()}\n`,
    );
}

function cellsOf({ quota, used, reserved, limit, isOwn, renewsAt }: Standing): string[] {
  const notes = [isOwn ? 'set for this tenant' : '', renewsAt ? `renews ${renewsAt.toISOString().slice(0, 10)}` : ''];
  const numbers = [used ?? '', reserved, limit ?? 'none'].map(String);
  return [quota, ...numbers, notes.filter(Boolean).join(', ')];
}

function say(what: string, { id, slug, name, plan, suspendedAt, deletingAt }: Tenant): void {
  const state = deletingAt
    ? ', being deleted: finish with delete'
    : suspendedAt
      ? `, suspended since ${suspendedAt.toISOString()}`
      : '';
  process.stdout.write(`${what ? `${what} ` : ''}${id}  ${slug}  ${plan}  ${JSON.stringify(name)}${state}\n`);
}
