import type { TenantId } from '@atomo-cc/kernel';
import type { Redis } from '@atomo-cc/platform/redis';
import { aDatabase, aRedis, type TestDatabase } from '@atomo-cc/testing';
import { append, type AppendResult, type StreamAppend } from './append.js';
import { Fence } from './fence.js';
import { findAnswers, keepAnswers } from './idempotency.js';
import { readEvents, readStream } from './read.js';
import { eventStoreMigrations } from './schema.js';
import { announceAppended, AppendHints, subscribe } from './subscription.js';
import type { EventStore } from './testing/event-store.js';
import { eventStoreConformance } from './testing/event-store.conformance.js';

let database: TestDatabase;
let redis: Redis;
let hearing: Redis;
let store: EventStore;

/** Only carries a refusal out of its transaction, which it rolls back. */
class Conflict extends Error {
  constructor(readonly result: AppendResult) {
    super('conflict');
  }
}

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  [redis, hearing] = [await aRedis('command'), await aRedis()];
  const { app } = database;
  const fence = new Fence();
  const hints = new AppendHints(hearing);
  store = {
    append: async (tenant, appends, answers = []) => {
      try {
        return await app.transaction(tenant, async (tx) => {
          const result = await append(tx, tenant, appends);
          if (!result.ok) throw new Conflict(result);
          await keepAnswers(tx, tenant, answers);
          return result;
        });
      } catch (error) {
        if (error instanceof Conflict) return error.result;
        throw error;
      } finally {
        announceAppended(redis, tenant);
      }
    },
    findAnswers: (tenant, keys) => app.transaction(tenant, (tx) => findAnswers(tx, tenant, keys)),
    readStream: (tenant, stream, page) => app.transaction(tenant, (tx) => readStream(tx, tenant, stream, page)),
    readAll: (tenant, page) =>
      app.transaction(tenant, async (tx) => {
        const settled = await fence.advance(tx);
        return { settled, events: await readEvents(tx, tenant, { ...page, settled }) };
      }),
    subscribe: (tenant, options) => subscribe({ database: app, fence, hints, tenant, ...options }),
  };
});

afterAll(async () => {
  redis?.disconnect();
  hearing?.disconnect();
  await database?.drop();
});

async function openAppend(tenant: TenantId, appends: readonly StreamAppend[]) {
  const made = Promise.withResolvers<void>();
  const told = Promise.withResolvers<void>();
  const over = database.app.transaction(tenant, async (tx) => {
    await append(tx, tenant, appends);
    made.resolve();
    await told.promise;
  });
  await made.promise;
  return {
    commit: () => (told.resolve(), over),
    rollBack: async () => {
      told.reject(new Error('rolled back'));
      await expect(over).rejects.toThrow('rolled back');
    },
  };
}

eventStoreConformance('Postgres', () => store, { openAppend });
