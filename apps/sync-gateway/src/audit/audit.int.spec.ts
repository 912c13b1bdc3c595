import { type AuditPage, type DeviceList, isContentHash } from '@atomo-cc/sync-protocol';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, hashOf, putOf, TestGateway } from '../testing/index.js';

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

describe('the audit of a store', () => {
  it('tells who changed what, when, with which key and from which device, whichever way it came', async () => {
    const store = await gateway.aStore();
    const [desk, script] = [await store.aKeyOf({ name: 'desk' }), await store.aKeyOf({ name: 'script' })];
    const audit = (query = '') => gateway.admin<AuditPage>('GET', `/stores/${store.id}/audit?${query}`);
    const from = Date.now();
    const laptop = await Device2.connect(gateway, desk.key, { device: 'laptop-1' });
    const plugin = await gateway.connect(script.key);
    await laptop.op(putOf('a.md', 'one'));
    await plugin.send('modified-file', { path: 'a.md', content: 'two' });
    await laptop.op({ op: 'rename', path: 'a.md', newPath: 'b.md' });
    await gateway.call('DELETE', '/api/v1/files?path=b.md', script.key);
    await gateway.admin('DELETE', `/stores/${store.id}/keys/${script.id}`);

    const byDesk = { key: { id: desk.id, name: 'desk', prefix: desk.prefix } };
    const byScript = { key: { id: script.id, name: 'script', prefix: script.prefix }, device: null };
    await eventually('the device is known by name', async () => (await audit()).entries.at(-1)?.device?.name);
    const { entries, next } = await audit();
    expect(next).toBeNull();
    expect(entries).toMatchObject([
      { seq: 4, op: 'delete', path: 'b.md', hash: null, oldHash: hashOf('two'), ...byScript },
      { seq: 3, op: 'rename', path: 'b.md', oldPath: 'a.md', ...byDesk, device: { id: 'laptop-1', name: 'laptop-1' } },
      { seq: 2, op: 'modify', path: 'a.md', hash: hashOf('two'), oldHash: hashOf('one'), ...byScript },
      { seq: 1, op: 'create', path: 'a.md', oldHash: null, ...byDesk, device: { id: 'laptop-1', name: 'laptop-1' } },
    ]);
    expect(new Set(entries.map(({ fileId }) => fileId)).size).toBe(1);
    for (const { at } of entries) expect(Date.parse(at)).toBeGreaterThanOrEqual(from - 1_000);
    expect(entries.every(({ oldHash }) => oldHash === null || isContentHash(oldHash))).toBe(true);

    const seqs = async (query: string) => (await audit(query)).entries.map(({ seq }) => seq);
    expect(await seqs('path=a.md')).toEqual([3, 2, 1]);
    expect(await seqs(`keyId=${script.id}`)).toEqual([4, 2]);
    expect(await seqs('device=laptop-1')).toEqual([3, 1]);
    const first = await audit('limit=3');
    expect([first.entries.length, first.next]).toEqual([3, 2]);
    expect(await seqs(`limit=3&before=${first.next}`)).toEqual([1]);
    for (const bad of ['path=../x', 'keyId=x', 'limit=-1', 'before=x', 'device=']) {
      const answer = await gateway.call('GET', `/api/v1/admin/stores/${store.id}/audit?${bad}`, 'sk_admin_dev');
      expect([bad, answer.status]).toEqual([bad, 400]);
    }
  });

  it('knows the devices that connected, under their latest names, and no more of them than it has room for', async () => {
    const store = await gateway.aStore();
    const { key, id } = await store.aKey();
    const list = async () => (await gateway.admin<DeviceList>('GET', `/stores/${store.id}/devices`)).devices;
    const hello = (device: Record<string, unknown>) =>
      gateway.connectWith({ apiKey: key, protocol: 2, device: { id: 'one', ...device } });
    await hello({ name: 'old name', platform: 'linux', app: 'vault 1' });
    await eventually('it is known', async () => (await list()).length === 1);
    const [before] = await list();
    await hello({ name: 'new name' });
    await eventually('its name is', async () => (await list())[0]?.name === 'new name');
    expect(await list()).toEqual([
      {
        id: 'one',
        name: 'new name',
        platform: null,
        app: null,
        keyId: id,
        firstSeenAt: before!.firstSeenAt,
        lastSeenAt: expect.any(String) as string,
        applied: null,
      },
    ]);
    await database.asOwner(
      `insert into store_devices (tenant_id, store_id, id, key_id)
       select tenant_id, id, 'made up ' || n, gen_random_uuid() from stores, generate_series(2, 1000) n where id = $1`,
      [store.id],
    );
    await hello({ id: 'one too many' });
    await hello({ name: 'still known' });
    await eventually('its name is', async () => (await list()).some(({ name }) => name === 'still known'));
    expect(await list()).toHaveLength(1_000);
  });

  it('knows how far each device has come, as far as that can be true', async () => {
    const store = await gateway.aStore();
    const { key } = await store.aKey();
    const list = () => gateway.admin<DeviceList>('GET', `/stores/${store.id}/devices`);
    const [laptop, phone] = [
      await Device2.connect(gateway, key, { device: 'laptop' }),
      await Device2.connect(gateway, key, { device: 'phone' }),
    ];
    const { epoch } = laptop.ready;
    for (const text of ['one', 'two', 'three']) await laptop.op(putOf('a.md', text));
    await eventually('both are known', async () => (await list()).devices.length === 2);
    expect(await list()).toMatchObject({ head: 3, devices: [{ applied: null }, { applied: null }] });
    const applied = async () => {
      const { devices } = await list();
      return Object.fromEntries(devices.map((device) => [device.id, device.applied?.through]));
    };
    await laptop.ask('ack', { epoch, through: 1 });
    await laptop.ask('ack', { epoch, through: 2 });
    // Nobody has what is not there yet.
    await phone.ask('ack', { epoch, through: 1_000 });
    await eventually('both are noted', async () => (await applied())['phone'] !== undefined);
    expect(await applied()).toEqual({ laptop: 2, phone: 3 });
    // Of another log it says nothing of this one.
    await laptop.ask('ack', { epoch: '01900000-0000-7000-8000-000000000000', through: 3 });
    await phone.ask('ack', { epoch, through: 1 });
    await eventually('the later one is noted', async () => (await applied())['phone'] === 1);
    expect(await applied()).toEqual({ laptop: 2, phone: 1 });
    await database.asOwner('update stores set epoch = gen_random_uuid() where id = $1', [store.id]);
    expect(await applied()).toEqual({ laptop: undefined, phone: undefined });
  });
});
