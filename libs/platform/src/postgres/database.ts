import { DataSource, type EntityManager, type EntityTarget, type ObjectLiteral, type Repository } from 'typeorm';
import type { TenantId } from '@atomo-cc/kernel';

/** The Postgres role that serves requests: it sees the rows of the tenant set for its transaction, and no others. */
export const APP_ROLE = 'atomo_app';
/** The Postgres role of background parts (projections, outbox, reaper) and credential look-up; granted table by table. */
export const SYSTEM_ROLE = 'atomo_system';

/**
 * Connections of one process and role. Ten is more than two cores can keep busy and small enough that a dozen processes
 * stay below Postgres' usual limit of 100.
 */
const POOL_SIZE = 10;
/** How long a caller waits for a free connection before it gets an error instead of hanging. */
const CONNECT_TIMEOUT_MS = 10_000;
/** A request's statement that runs longer is ended: it holds a connection that all others wait for. */
const STATEMENT_TIMEOUT_MS = 60_000;

/** An open transaction. It is passed as a parameter; who has one never reaches for another connection. */
export class Tx {
  constructor(private readonly manager: EntityManager) {}

  /** Runs one statement with `$1…` parameters and returns its rows, also for `insert … returning` and its kin. */
  async query<Row = Record<string, unknown>>(sql: string, parameters: readonly unknown[] = []): Promise<Row[]> {
    const result = await this.manager.queryRunner!.query(sql, parameters as unknown[], true);
    return result.records as Row[];
  }

  /** Runs one statement and returns how many rows it changed. */
  async execute(sql: string, parameters: readonly unknown[] = []): Promise<number> {
    const result = await this.manager.queryRunner!.query(sql, parameters as unknown[], true);
    return result.affected ?? 0;
  }

  /** The TypeORM repository of an entity, inside this transaction. For single rows off the hot path. */
  repository<Entity extends ObjectLiteral>(entity: EntityTarget<Entity>): Repository<Entity> {
    return this.manager.getRepository(entity);
  }
}

/** The database as request handlers have it: every transaction belongs to one tenant. */
export class AppDatabase {
  constructor(private readonly source: DataSource) {}

  /** Runs `work` in one transaction that sees only `tenant`'s rows; an error rolls everything back. */
  async transaction<Result>(tenant: TenantId, work: (tx: Tx) => Promise<Result>): Promise<Result> {
    return this.source.transaction(async (manager) => {
      const tx = new Tx(manager);
      // SET LOCAL takes no parameters; the third argument makes set_config equal to it.
      await tx.query(`select set_config('app.tenant_id', $1, true)`, [tenant]);
      return work(tx);
    });
  }

  /** Answers whether Postgres answers; for health checks. */
  async ping(): Promise<void> {
    await this.source.query('select 1');
  }

  /** Closes all connections. */
  async close(): Promise<void> {
    if (this.source.isInitialized) await this.source.destroy();
  }
}

/** The database as background parts have it: it sees the tables granted to the system role, across tenants. Never injected into a request handler. */
export class SystemDatabase {
  constructor(private readonly source: DataSource) {}

  /** Runs `work` in one transaction; an error rolls everything back. */
  async transaction<Result>(work: (tx: Tx) => Promise<Result>): Promise<Result> {
    return this.source.transaction((manager) => work(new Tx(manager)));
  }

  /** Closes all connections. */
  async close(): Promise<void> {
    if (this.source.isInitialized) await this.source.destroy();
  }
}

/** What a pool is opened with. */
export interface DatabaseOptions {
  readonly url: string;
  readonly service: string;
  readonly entities?: readonly (new () => object)[];
  readonly poolSize?: number;
}

async function connect(options: DatabaseOptions, role: string): Promise<DataSource> {
  const source = new DataSource({
    type: 'postgres',
    url: options.url,
    entities: [...(options.entities ?? [])],
    applicationName: `${options.service} ${role}`,
    poolSize: options.poolSize ?? POOL_SIZE,
    connectTimeoutMS: CONNECT_TIMEOUT_MS,
    // The role is a start-up parameter, so a connection of this pool never exists under the owner's rights.
    extra: { options: `-c role=${role} -c statement_timeout=${STATEMENT_TIMEOUT_MS}`, keepAlive: true },
  });
  return source.initialize();
}

/** Opens the pool that serves requests. The roles must exist: run the migrations first. */
export async function openAppDatabase(options: DatabaseOptions): Promise<AppDatabase> {
  return new AppDatabase(await connect(options, APP_ROLE));
}

/** Opens the pool of background parts. The roles must exist: run the migrations first. */
export async function openSystemDatabase(options: DatabaseOptions): Promise<SystemDatabase> {
  return new SystemDatabase(await connect(options, SYSTEM_ROLE));
}

/** The SQLSTATE of an error that Postgres answered, or null for any other error. */
export function sqlState(error: unknown): string | null {
  const { code } = (error as { driverError?: { code?: unknown } }).driverError ?? {};
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? code : null;
}
