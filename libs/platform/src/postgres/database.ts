import { createHash } from 'node:crypto';
import type { Writable } from 'node:stream';
import type { Client, Pool, PoolClient, QueryConfig, QueryResult } from 'pg';
import type { PostgresDriver } from 'typeorm/driver/postgres/PostgresDriver.js';
import { DataSource, type EntityTarget, type ObjectLiteral, type QueryRunner, type Repository } from 'typeorm';
import { CodedError, isCodedError, isUuid, type TenantId } from '@atomo-cc/kernel';
import { isConnectionLost, sqlState } from './errors.js';
import { readAsTenant } from './tenant-read.js';

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
/**
 * A statement that has no answer by now will get none: Postgres would have ended it before. The line is dead although nothing
 * says so (a firewall that forgot it, a machine that hangs), and with it all that waits on that connection.
 */
const ANSWER_TIMEOUT_MS = STATEMENT_TIMEOUT_MS + 5_000;
/** A rollback does next to nothing. Where it takes longer the connection is thrown away, which rolls back as well. */
const ROLLBACK_TIMEOUT_MS = 5_000;

/** Statements are sent without waiting for the answers before them (`pipeline` of node-postgres). */
export const PIPELINED = { pipeline: true } as const;

/**
 * Statements that a connection keeps prepared. The texts are constants and a few for each model; beyond this many, which
 * only a text made of values can reach, a statement is planned anew each time instead of filling the server's memory.
 */
const MAX_PREPARED = 2_000;

/** The name under which a text is prepared, on every connection. */
const preparedNames = new Map<string, string>();

function nameOf(sql: string): string | undefined {
  let name = preparedNames.get(sql);
  if (name === undefined && preparedNames.size < MAX_PREPARED) {
    name = createHash('sha256').update(sql).digest('base64url').slice(0, 16);
    preparedNames.set(sql, name);
  }
  return name;
}

/**
 * An answer that need not be waited for: of several statements on their way the first error ends the transaction, and the others,
 * which fail with it and nobody waits for any more, must not end the process as rejections that are not handled.
 */
function answerOf<Answer>(asked: Promise<QueryResult>, read: (result: QueryResult) => Answer): Promise<Answer> {
  const answer = asked.then(read);
  answer.catch(() => undefined);
  return answer;
}

/**
 * An open transaction. It is passed as a parameter; who has one never reaches for another connection. Statements take effect
 * in the order of the calls; they are sent at once and wait for no answer but the one they are awaited for.
 */
export class Tx {
  private readonly sent: Promise<unknown>[] = [];
  private isGathering = false;
  private firstFault: Error | undefined;
  /** Whether a commit was sent, and may have taken effect for all that is known so far. */
  private mayBeCommitted = false;
  /** SQLSTATE with which the commit was refused. */
  private refusal: string | null = null;

  /** @param runner has `client` checked out; TypeORM's repositories work through it */
  constructor(
    private readonly runner: QueryRunner,
    private readonly client: PoolClient,
  ) {}

  /** Runs one statement with `$1…` parameters and returns its rows, also for `insert … returning` and its kin. */
  query<Row = Record<string, unknown>>(sql: string, parameters: readonly unknown[] = []): Promise<Row[]> {
    return answerOf(this.ask({ text: sql, values: parameters as unknown[] }), ({ rows }) => rows as Row[]);
  }

  /**
   * As `query`, but parsed and planned once per connection: for texts of a fixed set (constants, or one for each model),
   * never for texts that depend on values.
   */
  prepared<Row = Record<string, unknown>>(sql: string, parameters: readonly unknown[] = []): Promise<Row[]> {
    const statement = { name: nameOf(sql)!, text: sql, values: parameters as unknown[] };
    return answerOf(this.ask(statement), ({ rows }) => rows as Row[]);
  }

  /** Runs one statement and returns how many rows it changed. */
  execute(sql: string, parameters: readonly unknown[] = []): Promise<number> {
    return answerOf(this.ask({ text: sql, values: parameters as unknown[] }), ({ rowCount }) => rowCount ?? 0);
  }

  /**
   * As `prepared`, for a statement whose answer nobody needs: it takes effect before whatever is called after it, and the
   * transaction fails with its error if it fails. The commit need not wait for it either, which saves a round trip.
   */
  send(sql: string, parameters: readonly unknown[] = []): void {
    this.keep(this.ask({ name: nameOf(sql)!, text: sql, values: parameters as unknown[] }));
  }

  /** The TypeORM repository of an entity, inside this transaction. For single rows off the hot path. */
  repository<Entity extends ObjectLiteral>(entity: EntityTarget<Entity>): Repository<Entity> {
    return this.runner.manager.getRepository(entity);
  }

  /** @internal Sends what opens the transaction; it holds no value from outside. */
  begin(sql: string): void {
    this.keep(this.ask(sql));
  }

  /** @internal @throws what a statement that was sent has failed with, or TRANSACTION_ABORTED */
  async commit(): Promise<void> {
    this.mayBeCommitted = true;
    const [end] = await Promise.allSettled([this.ask('commit'), ...this.sent]);
    if (end.status === 'fulfilled') this.mayBeCommitted = end.value.command === 'COMMIT';
    else this.refusal = sqlState(end.reason);
    if (this.firstFault) throw this.firstFault;
    if (end.status === 'rejected') throw end.reason;
    // What Postgres makes of a commit after a statement has failed and its error was swallowed.
    if (end.value.command !== 'COMMIT') {
      throw new CodedError(
        'TRANSACTION_ABORTED',
        'A statement of the transaction has failed, so nothing of it was kept.',
      );
    }
  }

  /** @internal Answers the error that the transaction has failed with, which is `fault` unless that is a consequence. */
  async rollback(fault: unknown): Promise<unknown> {
    let isLost = false;
    try {
      await this.client.query({ text: 'rollback', query_timeout: ROLLBACK_TIMEOUT_MS } as QueryConfig);
      // A server that goes down over a commit (a log that cannot be written) answers an error as well, but nothing after it.
      if (this.refusal !== null && !UNDECIDED.test(this.refusal)) this.mayBeCommitted = false;
    } catch {
      isLost = true;
      // A connection on which not even this works must not serve anybody else; an ended one the pool throws away.
      void (this.client as unknown as Client).end().catch(() => undefined);
    }
    await Promise.allSettled(this.sent);
    const told = this.firstFault && sqlState(fault) === ABORTED ? this.firstFault : fault;
    if (this.mayBeCommitted) fates.set(told as Error, 'open');
    else if (isLost) setUndone(told);
    return told;
  }

  /**
   * What is asked within one turn of the event loop leaves in one packet. Sent one by one, each statement costs a call of the
   * system here and wakes Postgres anew, which for a transaction of ten is more than the statements themselves.
   */
  private ask(statement: string | QueryConfig): Promise<QueryResult> {
    if (!this.isGathering) {
      this.isGathering = true;
      const { stream } = (this.client as unknown as { connection: { stream: Writable } }).connection;
      stream.cork();
      process.nextTick(() => {
        this.isGathering = false;
        stream.uncork();
      });
    }
    return this.client.query(statement as QueryConfig);
  }

  private keep(answer: Promise<unknown>): void {
    this.sent.push(answer);
    answer.catch((error: Error) => (this.firstFault ??= error));
  }
}

/** SQLSTATE of every statement after one that failed. */
const ABORTED = '25P02';

/** SQLSTATEs that leave open whether a commit took effect: of connections, and 40003, which says just that. */
const UNDECIDED = /^(08|40003)/;

/**
 * What became of a transaction whose connection failed it. `undone`: nothing of it was kept, because none was to be had or
 * because it broke before the commit was sent. `open`: it broke at the commit, and nobody here knows.
 */
export type TransactionFate = 'undone' | 'open';

/** By the error, so that the error stays what it is to who looks for its SQLSTATE. */
const fates = new WeakMap<object, TransactionFate>();

/** The fate of the transaction that failed with this error, or null where its connection was not at fault. */
export function fateOf(error: unknown): TransactionFate | null {
  return (typeof error === 'object' && error !== null && fates.get(error)) || null;
}

/** What was thrown for another reason says that reason; a coded error may be a constant that others throw too. */
function setUndone(error: unknown): void {
  if (typeof error === 'object' && error !== null && !isCodedError(error)) fates.set(error, 'undone');
}

/**
 * Runs `work` in one transaction on a connection of its own, which goes back to the pool only if it is sound.
 * @internal
 */
export async function inTransaction<Result>(
  source: DataSource,
  begin: (tx: Tx) => unknown,
  work: (tx: Tx) => Promise<Result>,
): Promise<Result> {
  // TypeORM watches the connection while it is out: one that breaks is taken out of the pool.
  const runner = source.createQueryRunner();
  try {
    const client = await runner.connect().catch((error: unknown) => {
      setUndone(error);
      throw error;
    });
    const tx = new Tx(runner, client as PoolClient);
    // So that its repositories take part in this transaction instead of opening, and committing, one of their own.
    Object.assign(runner, { isTransactionActive: true, transactionDepth: 1 });
    try {
      await begin(tx);
      const result = await work(tx);
      await tx.commit();
      return result;
    } catch (error) {
      throw await tx.rollback(error);
    }
  } finally {
    await runner.release();
  }
}

/** The database as request handlers have it: every transaction belongs to one tenant. */
export class AppDatabase {
  private readonly pool: Pool;

  constructor(private readonly source: DataSource) {
    this.pool = (source.driver as PostgresDriver).master as Pool;
  }

  /**
   * Runs `work` in one transaction that sees only `tenant`'s rows, and none if that is no UUID; an error rolls everything back.
   * @throws CodedError TRANSACTION_ABORTED when a statement failed and `work` went on as if it had not; what `work` throws;
   * an error with a fate (see `fateOf`) when the connection failed, or no answer came in time
   */
  async transaction<Result>(tenant: TenantId, work: (tx: Tx) => Promise<Result>): Promise<Result> {
    // In one statement and without waiting, so that opening costs no round trip. SET takes no parameters: only what has the
    // form of a UUID gets into the text. If Postgres should refuse to begin, no tenant is set for what follows either, and
    // row-level security lets it do nothing.
    const begin = `begin; set local app.tenant_id to '${isUuid(tenant) ? tenant : ''}'`;
    return inTransaction(this.source, (tx) => tx.begin(begin), work);
  }

  /**
   * Reads with one statement, which sees only `tenant`'s rows, and none if that is no UUID. As in a transaction of its own, but
   * in one round trip, and prepared: the texts need not be of a fixed set, since a connection keeps those that it used last.
   * @throws what Postgres answers; an error with a fate (see `fateOf`) when the connection failed, or no answer came in time
   */
  async read<Row = Record<string, unknown>>(
    tenant: TenantId,
    sql: string,
    parameters: readonly unknown[] = [],
  ): Promise<Row[]> {
    try {
      return await readAsTenant<Row>(this.pool, isUuid(tenant) ? tenant : '', sql, parameters);
    } catch (error) {
      if (isConnectionLost(error)) setUndone(error);
      throw error;
    }
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

  /**
   * Runs `work` in one transaction; an error rolls everything back.
   * @throws CodedError TRANSACTION_ABORTED when a statement failed and `work` went on as if it had not; what `work` throws;
   * an error with a fate (see `fateOf`) when the connection failed, or no answer came in time
   */
  async transaction<Result>(work: (tx: Tx) => Promise<Result>): Promise<Result> {
    return inTransaction(this.source, (tx) => tx.query('begin'), work);
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
  /** How long a statement waits for its answer before its connection is given up; longer than any statement may run. */
  readonly answerTimeoutMs?: number;
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
    extra: {
      options: `-c role=${role} -c statement_timeout=${STATEMENT_TIMEOUT_MS}`,
      keepAlive: true,
      // With `pipeline` node-postgres ends the connection when the time is over, since all behind that statement waits too.
      query_timeout: options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS,
      ...PIPELINED,
    },
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
