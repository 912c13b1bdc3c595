import { DataSource, type MigrationInterface, type QueryRunner } from 'typeorm';
import { CodedError } from '@atomo-cc/kernel';
import { APP_ROLE, inTransaction, PIPELINED, SYSTEM_ROLE, type Tx } from './database.js';

/** The oldest Postgres that has everything we use (`security_invoker` views and `nulls not distinct` came with 15). */
const OLDEST_POSTGRES = 150_000;
/** The advisory lock under which one process migrates while the others wait: "atomo" in ASCII. */
const MIGRATION_LOCK = 0x61746f6d6f;

/** A migration class; each table's owner exports the list of its own, in order. */
export type Migration = new () => MigrationInterface;

/** Creates the two roles that all later migrations grant to. Roles belong to the whole cluster, hence the care when they exist. */
class Roles1700000000000 implements MigrationInterface {
  name = 'Roles1700000000000';

  async up(runner: QueryRunner): Promise<void> {
    for (const role of [APP_ROLE, SYSTEM_ROLE]) {
      await runner.query(`do $$ begin
          create role ${role} nologin nosuperuser nobypassrls nocreatedb nocreaterole;
        exception when duplicate_object or unique_violation then null; end $$`);
      // From Postgres 16 on the creator of a role is its member, but may not act as it unless that is granted besides.
      // Roles belong to the cluster, the lock to one database: another database's migration may grant it meanwhile.
      await runner.query(`do $$ begin
          if not pg_has_role(current_user, '${role}', case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end) then
            execute 'grant ${role} to ' || quote_ident(current_user);
          end if;
        exception when unique_violation then null; end $$`);
      await runner.query(`grant usage on schema public to ${role}`);
    }
  }

  async down(): Promise<void> {}
}

/**
 * Brings the database to the newest version of the given migrations. Safe to call from many processes at once and again
 * and again; each migration runs in its own transaction.
 * @throws CodedError DATABASE_UNREACHABLE, DATABASE_TOO_OLD
 */
export async function migrate(url: string, migrations: readonly Migration[]): Promise<void> {
  await asOwner(url, [Roles1700000000000, ...migrations], async (source) => void (await source.runMigrations()));
}

/**
 * Changes tables whose shape is known only at run time, in one transaction and under the same lock as `migrate`.
 * @throws CodedError DATABASE_UNREACHABLE, DATABASE_TOO_OLD
 */
export async function changeTables(url: string, change: (tx: Tx) => Promise<void>): Promise<void> {
  await asOwner(url, [], (source) => inTransaction(source, (tx) => tx.query('begin'), change));
}

async function asOwner(
  url: string,
  migrations: readonly Migration[],
  work: (source: DataSource) => Promise<void>,
): Promise<void> {
  const source = new DataSource({
    type: 'postgres',
    url,
    migrations: [...migrations],
    migrationsTableName: 'migrations',
    migrationsTransactionMode: 'each',
    applicationName: 'atomo migrate',
    poolSize: 2,
    connectTimeoutMS: 10_000,
    extra: PIPELINED,
  });
  try {
    await source.initialize();
  } catch (error) {
    throw new CodedError('DATABASE_UNREACHABLE', describeConnectFault(url, error), undefined, { cause: error });
  }
  const lock = source.createQueryRunner();
  try {
    const [{ version }] = await lock.query(`select current_setting('server_version_num')::int as version`);
    if (version < OLDEST_POSTGRES) {
      throw new CodedError(
        'DATABASE_TOO_OLD',
        `Postgres ${Math.floor(version / 10_000)} at DATABASE_URL is older than 15.`,
      );
    }
    await lock.query('select pg_advisory_lock($1)', [MIGRATION_LOCK]);
    await work(source);
  } finally {
    await lock.query('select pg_advisory_unlock_all()').catch(() => undefined);
    await lock.release();
    await source.destroy();
  }
}

/** One sentence for a person about a failed connection; never carries the password. */
export function describeConnectFault(url: string, error: unknown): string {
  if (!URL.canParse(url)) return 'DATABASE_URL is not a URL. Example: postgres://atomo:secret@localhost:5432/atomo';
  const { code = '', message = '' } = error as { code?: string; message?: string };
  const { hostname, port, username, pathname } = new URL(url);
  const where = `${hostname}:${port || 5432}`;
  if (code === '28P01' || code === '28000') {
    return `Postgres at ${where} refuses the login of "${username}": check user and password in DATABASE_URL.`;
  }
  if (code === '3D000') {
    return `Postgres at ${where} has no database "${pathname.slice(1)}": create it, or correct DATABASE_URL.`;
  }
  const reason = code || withoutSecrets(message, url) || 'it gave no reason';
  return `Postgres does not answer at ${where} (${reason}): check DATABASE_URL, and that Postgres runs there.`;
}

/** A driver's own words without the password, as it is written in the URL and as it is meant. */
function withoutSecrets(message: string, url: string): string {
  const { password, searchParams } = new URL(url);
  const secrets = [password, searchParams.get('password') ?? ''].flatMap((secret) => [secret, readable(secret)]);
  return [url, ...secrets].filter(Boolean).reduce((said, secret) => said.replaceAll(secret, '…'), message);
}

function readable(encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}

/**
 * The statements that put a table under row-level security: the application's role sees and writes only rows of the tenant
 * set for its transaction (none when none is set), the system role sees all. `forced` holds for the table's owner too.
 * @param grants what each role may do, such as `select, insert`
 */
export function tenantTable(table: string, grants: { app: string; system: string }): string[] {
  const own = `tenant_id = nullif(current_setting('app.tenant_id', true), '')::uuid`;
  return [
    `alter table ${table} enable row level security`,
    `alter table ${table} force row level security`,
    `create policy tenant on ${table} to ${APP_ROLE} using (${own}) with check (${own})`,
    `create policy system on ${table} to ${SYSTEM_ROLE} using (true) with check (true)`,
    ...(grants.app ? [`grant ${grants.app} on ${table} to ${APP_ROLE}`] : []),
    ...(grants.system ? [`grant ${grants.system} on ${table} to ${SYSTEM_ROLE}`] : []),
  ];
}

/** Runs statements one after the other. */
export async function runAll(runner: QueryRunner, statements: readonly string[]): Promise<void> {
  for (const statement of statements) await runner.query(statement);
}
