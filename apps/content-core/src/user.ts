// The process behind `npm run user`: makes a user, or changes the one with an address, and ends. A process of its own because the
// roles are the schema's, and nothing imports an app. Ends with 0 when it is as it was wanted, else with 1.
import { randomBytes } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { inspect, parseArgs } from 'node:util';
import { accessEntities, Accounts, type User } from '@atomo-cc/access';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, SubjectKeys } from '@atomo-cc/event-store';
import { CodedError, DEFAULT_TENANT_ID, isCodedError, isUuid, type TenantId } from '@atomo-cc/kernel';
import { migrate, openAppDatabase, openSystemDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { encryptionConfig, tablesConfig } from './config.js';
import { contentCoreMigrations } from './migrations.js';
import { loadSchema } from './models/index.js';
import { operator } from './operator.js';

/** Of a password that is made up: 144 bits, which nobody guesses, in 24 characters. */
const PASSWORD_BYTES = 18;

try {
  const { values } = parseArgs({
    options: {
      email: { type: 'string', default: '' },
      role: { type: 'string' },
      name: { type: 'string' },
      password: { type: 'string' },
      'new-password': { type: 'boolean', default: false },
      tenant: { type: 'string' },
      disable: { type: 'boolean', default: false },
      enable: { type: 'boolean', default: false },
      reason: { type: 'string' },
    },
  });
  const { DATABASE_URL: url, ATOMO_SERVICE } = tablesConfig();
  const schema = await loadSchema(ATOMO_SERVICE);
  await migrate(url, contentCoreMigrations);
  const pool = { url, service: 'atomo user', entities: accessEntities, poolSize: 1 };
  const [app, system] = await Promise.all([openAppDatabase(pool), openSystemDatabase(pool)]);
  try {
    const { ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED } = encryptionConfig();
    const keys = new SubjectKeys(ENCRYPTION_KEY, ENCRYPTION_KEYS_ACCEPTED);
    const known = await system.transaction(async (tx) => {
      await keys.check(tx);
      return findTenant(tx, values);
    });
    const accounts = new Accounts(app, new EventCodec(keys, ATOMO_EVENTS), schema.roles);
    await apply(accounts, known, values);
  } finally {
    await Promise.all([app.close(), system.close()]);
  }
} catch (error) {
  process.stderr.write(`${isCodedError(error) ? error.message : inspect(error)}\n`);
  process.exitCode = 1;
}

interface Wanted {
  readonly email: string;
  readonly role?: string | undefined;
  readonly name?: string | undefined;
  readonly password?: string | undefined;
  readonly 'new-password': boolean;
  readonly tenant?: string | undefined;
  readonly disable: boolean;
  readonly enable: boolean;
  readonly reason?: string | undefined;
}

/** The tenant that is named, else that of the user with this address, else the default one. @throws CodedError NOT_FOUND */
async function findTenant(tx: Tx, { email, tenant }: Wanted): Promise<TenantId> {
  const [user] = await tx.query<{ tenant_id: TenantId }>('select tenant_id from users where email = lower($1)', [
    email.trim(),
  ]);
  const wanted = tenant?.toLowerCase() ?? user?.tenant_id ?? DEFAULT_TENANT_ID;
  const isThere = isUuid(wanted) && (await tx.query('select 1 from tenants where id = $1', [wanted])).length > 0;
  if (isThere) return wanted as TenantId;
  throw new CodedError('NOT_FOUND', `There is no tenant ${wanted}.`);
}

async function apply(accounts: Accounts, tenant: TenantId, wanted: Wanted): Promise<void> {
  const by = operator(wanted.reason);
  const known = await accounts.find(tenant, wanted.email);
  const { role, name, disable, enable } = wanted;
  if (!known) {
    if (role === undefined) throw new CodedError('VALIDATION_ERROR', `${wanted.email} is new: say which --role.`);
    const password = await passwordOf(wanted, true);
    const user = await accounts.create(tenant, { email: wanted.email, role, name, password: password.text }, by);
    const disabled = disable ? await accounts.update(tenant, user.id, { disabled: true }, by) : user;
    return tell('Made', disabled, password);
  }
  const isNewPassword = wanted.password !== undefined || wanted['new-password'];
  const password = isNewPassword ? await passwordOf(wanted, wanted['new-password']) : null;
  const change = { role, name, ...((disable || enable) && { disabled: disable }) };
  const user = await accounts.update(tenant, known.id, { ...change, password: password?.text }, by);
  tell(password || !isAlike(known, user) ? 'Changed' : 'Nothing to change:', user, password);
}

interface Password {
  readonly text: string;
  readonly isMadeUp: boolean;
}

async function passwordOf({ password }: Wanted, mayMakeUp: boolean): Promise<Password> {
  if (password === '-') return { text: (await text(process.stdin)).replace(/\r?\n[^]*$/, ''), isMadeUp: false };
  if (password !== undefined || !mayMakeUp) return { text: password ?? '', isMadeUp: false };
  return { text: randomBytes(PASSWORD_BYTES).toString('base64url'), isMadeUp: true };
}

function isAlike(before: User, after: User): boolean {
  return before.role === after.role && before.name === after.name && !before.disabledAt === !after.disabledAt;
}

function tell(what: string, user: User, password: Password | null): void {
  const state = user.disabledAt ? ', disabled' : '';
  process.stdout.write(`${what} ${user.email} (${user.name}), ${user.role}${state}, tenant ${user.tenantId}.\n`);
  if (password?.isMadeUp) process.stdout.write(`The password, which is shown only now: ${password.text}\n`);
}
