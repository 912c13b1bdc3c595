import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import {
  type Projection,
  EventCodec,
  ProjectionRunner,
  projectionStatus,
  requestBuild,
  SubjectKeys,
  wasErasedSince,
} from '@atomo-cc/event-store';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import type { TenantId } from '@atomo-cc/kernel';
import type { ApiPart } from '../../api/index.js';
import type { SchemaDefinition } from '@atomo-cc/schema';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { contentCoreMigrations } from '../../migrations.js';
import { anApi, SHOP_TENANTS, type Json, type TestApi } from '../../testing/index.js';
import { RecordCommands } from '../commands.js';
import { createModelTables } from '../model-tables.js';
import { modelsApi } from '../models-api.js';
import { projectionsOf } from '../row-projection.js';

/** A schema as content-core serves it, with its projections at work. */
export interface TestSystem {
  readonly database: TestDatabase;
  readonly api: TestApi;
  readonly codec: EventCodec;
  readonly runner: ProjectionRunner;
  /** Of the same database, for what the API does not show. */
  readonly commands: RecordCommands;
  /**
   * Builds all projections anew from the log, puts them in the live ones' place, and answers how the rows of before differ from
   * them. A table that nobody wrote is told as well: what is not compared proves nothing.
   */
  rebuilt(): Promise<{ readonly differences: unknown[]; readonly empty: string[] }>;
  /** What a subscription tells from the beginning of the log on, as many payloads as are asked for. */
  follow(query: string, variables: Record<string, unknown>, count: number, tenant?: TenantId): Promise<Json[]>;
  stop(): Promise<void>;
}

/** What a system has beside the models' API and projections. */
export interface MoreParts {
  readonly parts?: (system: Pick<TestSystem, 'database' | 'codec' | 'commands'>) => readonly ApiPart[];
  readonly projections?: readonly Projection[];
  /** Told of what fails in a projection; otherwise `stop` throws it. */
  readonly onError?: (error: unknown) => void;
}

/** Serves a schema on a database of its own. */
export async function aSystem(schema: SchemaDefinition, more: MoreParts = {}): Promise<TestSystem> {
  const database = await aDatabase(contentCoreMigrations, { poolSize: 10 });
  await createModelTables(database.url, schema);
  const codec = new EventCodec(new SubjectKeys('the encryption key of these tests'), ATOMO_EVENTS);
  const faults: unknown[] = [];
  const projections = projectionsOf(schema, codec);
  const runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [...projections, ...(more.projections ?? [])],
    decode: (tx, events) => codec.decode(tx, events),
    pollMs: 20,
    leaseMs: 900,
    onError: more.onError ?? ((error) => faults.push(error)),
  });
  const onAppended = () => runner.wake();
  const commands = new RecordCommands(schema, database.app, { codec, onAppended });
  const api = await anApi([
    modelsApi(schema, database.app, { codec, wasErasedSince, onAppended }),
    ...(more.parts?.({ database, codec, commands }) ?? []),
  ]);
  await runner.start();
  const names = projections.map(({ name }) => name);
  const builds = async () =>
    (await projectionStatus(database.system)).filter(({ projection }) => names.includes(projection));

  const rebuilt = async () => {
    const before = new Map((await builds()).map(({ projection, live }) => [projection, live!.build]));
    for (const projection of names) await requestBuild(database.system, { projection, by: 'user:1', reason: 'a test' });
    await eventually('the builds are live', async () => {
      await runner.look();
      return (await builds()).every(({ projection, live }) => live!.build !== before.get(projection));
    });
    const differences: unknown[] = [];
    const empty: string[] = [];
    for (const { name, tables } of projections) {
      for (const { name: table } of tables) {
        const old = `${table}__b${before.get(name)}`;
        const only = (from: string, a: string, b: string) =>
          `(select '${table}' as table, '${from}' as in, to_jsonb(x) as row from ${a} x except all select '${table}', '${from}', to_jsonb(x) from ${b} x)`;
        differences.push(
          ...(await database.asOwner(`${only('commands', old, table)} union all ${only('log', table, old)}`)),
        );
        if ((await database.asOwner(`select 1 from ${table} limit 1`)).length === 0) empty.push(table);
      }
    }
    return { differences, empty };
  };

  const follow: TestSystem['follow'] = async (query, variables, count, tenant = SHOP_TENANTS[0]) => {
    const client = createClient({
      url: api.url.replace('http', 'ws'),
      webSocketImpl: WebSocket,
      connectionParams: { authorization: `Bearer ${tenant}` },
      retryAttempts: 0,
    });
    const told: Json[] = [];
    for await (const { data, errors } of client.iterate<Record<string, Json>>({ query, variables })) {
      if (errors) throw new Error(JSON.stringify(errors));
      told.push(...Object.values(data!));
      if (told.length === count) break;
    }
    await client.dispose();
    return told;
  };

  return {
    database,
    api,
    follow,
    codec,
    runner,
    commands,
    rebuilt,
    stop: async () => {
      await runner.stop();
      await api.close();
      await database.drop();
      if (faults.length > 0) throw new AggregateError(faults, 'a projection failed');
    },
  };
}
