import { Query, type Pool, type PoolClient, type Submittable } from 'pg';
import type { TenantId } from '@atomo-cc/kernel';
import { isConnectionLost, sqlState } from './errors.js';

/**
 * Texts that a connection keeps prepared for reads. An application has some dozens of documents, and each plan takes some tens
 * of kilobytes of the server's memory; whoever sends a thousand different ones makes only his own be planned anew.
 */
export const MAX_PREPARED_READS = 200;

/** The tenant holds until the `Sync` behind the read, which ends the transaction that both are in. */
const SET_TENANT = { name: 'read_tenant', text: `select set_config('app.tenant_id', $1, true)` };

/** What node-postgres has on its connection, as far as a read speaks with it. */
interface Wire {
  readonly parsedStatements: Record<string, string>;
  readonly submittedNamedStatements: Record<string, string>;
  parse(statement: { name: string; text: string }): void;
  bind(values: { statement: string; values: readonly unknown[] }): void;
  execute(portal: object): void;
  close(statement: { type: 'S'; name: string }): void;
}

/** The part of node-postgres' query that a read changes. Other classes of queries it refuses where statements are pipelined. */
const QueryOnWire = Query as unknown as new (
  config: { name: string; text: string; values: unknown[] },
  callback: (error: Error | null, result: { rows: unknown[] }) => void,
) => {
  name: string;
  text: string;
  prepare(wire: Wire): void;
  handleDataRow(message: object): void;
  handleCommandComplete(message: object, wire: Wire): void;
  handleError(error: Error, wire: Wire): void;
};

/** The statements of a connection by their texts, those that were used last at the end. */
class PreparedReads {
  private readonly names = new Map<string, string>();
  private outdated: string[] = [];
  private count = 0;

  static readonly of = new WeakMap<Wire, PreparedReads>();

  /** The name of a text: a new one unless it is known. Makes room for it. */
  nameOf(text: string): string {
    let name = this.names.get(text);
    if (name !== undefined) this.names.delete(text);
    else if (this.names.size === MAX_PREPARED_READS) this.forget(this.names.keys().next().value!);
    this.names.set(text, (name ??= `read_${(this.count += 1)}`));
    return name;
  }

  /** The next use of the text prepares it anew, under another name. */
  forget(text: string): void {
    const name = this.names.get(text);
    if (name === undefined) return;
    this.names.delete(text);
    this.outdated.push(name);
  }

  /** Tells the server what is not needed any more. To close what is not there is no error. */
  closeOutdated(wire: Wire): void {
    for (const name of this.outdated) {
      wire.close({ type: 'S', name });
      delete wire.parsedStatements[name];
      delete wire.submittedNamedStatements[name];
    }
    this.outdated = [];
  }
}

/** One statement, with the tenant set before it in the same message: one transaction in one round trip. */
class TenantRead extends QueryOnWire {
  private isTenantSet = false;

  constructor(
    private readonly tenant: string,
    text: string,
    parameters: readonly unknown[],
    callback: (error: Error | null, result: { rows: unknown[] }) => void,
  ) {
    // The name is that of the connection it comes to; without one it would not be asked for its preparation.
    super({ name: 'read', text, values: parameters as unknown[] }, callback);
  }

  override prepare(wire: Wire): void {
    let prepared = PreparedReads.of.get(wire);
    if (!prepared) PreparedReads.of.set(wire, (prepared = new PreparedReads()));
    this.name = prepared.nameOf(this.text);
    prepared.closeOutdated(wire);
    if (wire.parsedStatements[SET_TENANT.name] === undefined) {
      wire.close({ type: 'S', name: SET_TENANT.name });
      wire.parse(SET_TENANT);
      wire.parsedStatements[SET_TENANT.name] = SET_TENANT.text;
    }
    wire.bind({ statement: SET_TENANT.name, values: [this.tenant] });
    wire.execute({});
    super.prepare(wire);
  }

  override handleDataRow(message: object): void {
    if (this.isTenantSet) super.handleDataRow(message);
  }

  override handleCommandComplete(message: object, wire: Wire): void {
    if (this.isTenantSet) super.handleCommandComplete(message, wire);
    this.isTenantSet = true;
  }

  /** How far the server has got with what it was sent is not known here, so the next read begins anew. */
  override handleError(error: Error, wire: Wire): void {
    PreparedReads.of.get(wire)?.forget(this.text);
    if (!this.isTenantSet) delete wire.parsedStatements[SET_TENANT.name];
    super.handleError(error, wire);
  }
}

/** Outdated by a change of the table, or unknown to a server behind a pooler: the same read succeeds when it is prepared anew. */
const OUTDATED_STATEMENT = ['0A000', '26000'];

/**
 * Reads with one statement in a transaction of its own that sees only `tenant`'s rows, in one round trip.
 * @throws what Postgres answers, or what befell the connection, which then does not go back to the pool
 */
export async function readAsTenant<Row>(
  pool: Pool,
  tenant: TenantId | '',
  text: string,
  parameters: readonly unknown[],
): Promise<Row[]> {
  const client = await pool.connect();
  // A connection that breaks tells so by an event besides, which would end the process if nobody listened.
  client.on('error', ignore);
  let broken: Error | undefined;
  try {
    try {
      return await send<Row>(client, tenant, text, parameters);
    } catch (error) {
      if (!OUTDATED_STATEMENT.includes(sqlState(error) ?? '')) throw error;
      return await send<Row>(client, tenant, text, parameters);
    }
  } catch (error) {
    if (isConnectionLost(error)) broken = error as Error;
    throw error;
  } finally {
    client.off('error', ignore);
    client.release(broken);
  }
}

const ignore = () => undefined;

function send<Row>(client: PoolClient, tenant: string, text: string, parameters: readonly unknown[]): Promise<Row[]> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null | undefined, result: { rows: unknown[] }) =>
      error ? reject(error) : resolve(result.rows as Row[]);
    client.query(new TenantRead(tenant, text, parameters, done) as unknown as Submittable);
  });
}
