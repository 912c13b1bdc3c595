import { randomBytes, randomUUID } from 'node:crypto';
import type { TrashedFile } from '@atomo-cc/sync-protocol';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, hashOf, putOf, TestGateway } from '../testing/index.js';
import { clearStore } from './retention.js';

let database: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  gateway = await TestGateway.start(database.url);
});

afterAll(async () => {
  await gateway.stop();
  await database.drop();
});

/** What the store's log says happened up to `seq` was so many days ago. */
async function age(storeId: string, seq: number, days: number): Promise<void> {
  await database.asOwner(`update store_changes set at = at - $3 * interval '1 day' where store_id = $1 and seq <= $2`, [
    storeId,
    seq,
    days,
  ]);
  await database.asOwner(`update store_blobs set touched_at = now() - interval '3 days' where store_id = $1`, [
    storeId,
  ]);
}

it('forgets what is old and named by nothing, and keeps what was overwritten or deleted since, however old it was', async () => {
  const store = await gateway.aStore();
  const { key } = await store.aKey();
  const device = await Device2.connect(gateway, key);
  const { epoch } = device.ready;
  const opId = randomUUID();
  await device.push(
    putOf('kept.md', 'old and live'),
    putOf('changed.md', 'first'),
    putOf('changed.md', 'second'),
    putOf('gone.md', 'deleted late'),
    putOf('early.md', 'deleted early', { opId }),
    { op: 'delete', path: 'early.md' },
  );
  await age(store.id, 6, 31);
  await database.asOwner(
    `update store_files set expires_at = now() - interval '1 day' where store_id = $1 and path = 'early.md'`,
    [store.id],
  );
  await device.push(putOf('changed.md', 'third'), { op: 'delete', path: 'gone.md' });
  const waiting = randomBytes(100);
  await device.ask('upload', { hash: hashOf(waiting), bytes: waiting });

  const [row] = await database.asOwner<{ tenant_id: string }>('select tenant_id from stores where id = $1', [store.id]);
  await database.system.transaction((tx) => clearStore(tx, row!.tenant_id, store.id, 30));

  const blobs = await database.asOwner<{ hash: string }>('select hash from store_blobs where store_id = $1', [
    store.id,
  ]);
  const expected = ['old and live', 'second', 'third', 'deleted late', waiting].map((content) => hashOf(content));
  expect(blobs.map(({ hash }) => hash).toSorted()).toEqual(expected.toSorted());
  // The log begins later now, and says so.
  await expect(device.ask('pull', { epoch, from: 5 })).rejects.toMatchObject({
    code: 'RESYNC_REQUIRED',
    details: { reason: 'FLOOR' },
  });
  expect(await device.ask('pull', { epoch, from: 6 })).toMatchObject({ through: 8 });
  const { files } = (await gateway.call<{ files: TrashedFile[] }>('GET', '/api/v2/trash', key)).body;
  expect(files.map(({ path }) => path)).toEqual(['gone.md']);
  const restored = await gateway.call('POST', `/api/v2/files/${files[0]!.fileId}/restore`, key, { opId: randomUUID() });
  expect(restored.body).toMatchObject({ success: true, hash: hashOf('deleted late') });
  const [changed] = (await gateway.snapshot(key)).files.filter(({ path }) => path === 'changed.md');
  const back = await gateway.call('POST', `/api/v2/files/${changed!.fileId}/restore`, key, {
    opId: randomUUID(),
    hash: hashOf('second'),
  });
  expect(back.body).toMatchObject({ success: true, hash: hashOf('second') });
});
