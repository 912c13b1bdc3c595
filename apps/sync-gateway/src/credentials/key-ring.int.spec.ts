import { issueApiKey, revokeApiKey } from '@atomo-cc/access';
import { DEFAULT_TENANT_ID, uuidv7 } from '@atomo-cc/kernel';
import { SystemDatabase } from '@atomo-cc/platform/postgres';
import { storeKeyPrefix } from '@atomo-cc/sync-protocol';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { KeyRing } from './key-ring.js';

const BY = { actor: 'operator:test' };

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
});

afterAll(() => database.drop());

async function aKey() {
  const storeId = uuidv7();
  const wanted = { tenantId: DEFAULT_TENANT_ID, storeId, name: 'k', permissions: ['read'] as const };
  const { row, key } = await database.app.transaction(DEFAULT_TENANT_ID, (tx) =>
    issueApiKey(tx, { ...wanted, prefix: storeKeyPrefix(storeId) }, BY),
  );
  const revoke = () => database.app.transaction(DEFAULT_TENANT_ID, (tx) => revokeApiKey(tx, storeId, row.id, BY));
  return { row, key, revoke };
}

describe('the key ring', () => {
  it('trusts what it found for 4 s, and not longer', async () => {
    let now = 0;
    const keys = new KeyRing(database.system, () => now);
    const { row, key, revoke } = await aKey();
    expect(await keys.find(key)).toMatchObject({ id: row.id, storeId: row.storeId, permissions: ['read'] });
    await revoke();
    now = 3_999;
    expect(await keys.find(key)).toMatchObject({ id: row.id });
    now = 4_000;
    expect(await keys.find(key)).toBeNull();
  });

  it('forgets a key at once, also one whose look-up is under way', async () => {
    const gate = Promise.withResolvers<void>();
    const read = Promise.withResolvers<void>();
    // Answers with what was true before the revocation, after it.
    class SlowDatabase extends SystemDatabase {
      override async transaction<Result>(
        work: Parameters<typeof database.system.transaction<Result>>[0],
      ): Promise<Result> {
        const result = await database.system.transaction(work);
        read.resolve();
        await gate.promise;
        return result;
      }
    }
    const keys = new KeyRing(new SlowDatabase(undefined as never));
    const { row, key, revoke } = await aKey();
    const early = keys.find(key);
    await read.promise;
    await revoke();
    keys.forget(row.id);
    gate.resolve();
    await early;
    expect(await keys.find(key)).toBeNull();
  });

  it('asks nothing of the database for what cannot be a key', async () => {
    const keys = new KeyRing(undefined as never);
    for (const junk of [undefined, null, {}, [], 'x', 'sk_store_', 'x'.repeat(1_000_000)])
      expect(await keys.find(junk)).toBeNull();
  });
});
