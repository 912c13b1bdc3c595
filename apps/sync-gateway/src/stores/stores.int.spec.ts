import { findApiKeyByHash, hashApiKey } from '@atomo-cc/access';
import { DEFAULT_TENANT_ID, type TenantId } from '@atomo-cc/kernel';
import { isWholeStoreKey, parseStoreKey } from '@atomo-cc/sync-protocol';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, hashOf, putOf, TestGateway } from '../testing/index.js';

const OTHER_TENANT = '00000000-0000-7000-8000-0000000000aa' as TenantId;
const NOBODY = '01900000-0000-7000-8000-000000000000';

let database: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  await database.asOwner(`insert into tenants (id, name, slug) values ($1, 'Other', 'other')`, [OTHER_TENANT]);
  gateway = await TestGateway.start(database.url);
});

afterAll(async () => {
  await gateway.stop();
  await database.drop();
});

const error = (status: number, code: string) => ({ status, body: { error: { code } } });
const admin = (method: string, path: string, key?: string, body?: unknown) =>
  gateway.call(method, `/api/v1/admin${path}`, key, body);

describe('the admin routes', () => {
  it('are open to the master key alone', async () => {
    const { key } = await (await gateway.aStore()).aKey();
    expect(await admin('GET', '/stores')).toMatchObject(error(401, 'UNAUTHORIZED'));
    expect(await admin('GET', '/stores', key)).toMatchObject(error(403, 'FORBIDDEN'));
    expect(await admin('GET', '/stores', 'sk_admin_wrong')).toMatchObject(error(401, 'UNAUTHORIZED'));
    expect(await admin('GET', '/stores', 'sk_admin_dev')).toMatchObject({ status: 200 });
    // Nor is the tenant that a store's key names of any account, and forms say nothing.
    for (const way of [`/stores?tenantId=${OTHER_TENANT}`, `/stores/${NOBODY}/keys?tenantId=${OTHER_TENANT}`]) {
      expect(await admin('GET', way, key)).toMatchObject(error(403, 'FORBIDDEN'));
    }
    const form = await fetch(`${gateway.url}/api/v1/admin/stores`, {
      method: 'POST',
      headers: { 'x-api-key': 'sk_admin_dev', 'content-type': 'application/x-www-form-urlencoded' },
      body: 'name=x',
    });
    expect(form.status).toBe(400);
    // The master key is no store's key, and sockets do not know it.
    expect(await gateway.call('GET', '/api/v1/files', 'sk_admin_dev')).toMatchObject(error(401, 'UNAUTHORIZED'));
    await expect(gateway.connect('sk_admin_dev')).rejects.toThrow('INVALID_KEY');
  });

  it('make, count, list and delete stores', async () => {
    const store = await gateway.aStore();
    const { key } = await store.aKey();
    await gateway.call('PUT', '/api/v1/files', key, { path: 'a.md', content: 'été' });
    await gateway.call('PUT', '/api/v1/files', key, { path: 'b.md', content: 'x' });
    await gateway.call('DELETE', '/api/v1/files?path=b.md', key);

    const view = await gateway.admin('GET', `/stores/${store.id}`);
    expect(view).toEqual({
      id: store.id,
      name: 'Vault',
      fileCount: 1,
      totalSize: 5,
      createdAt: expect.any(String) as string,
      updatedAt: expect.any(String) as string,
    });
    expect(await gateway.admin('GET', '/stores')).toEqual({ stores: expect.arrayContaining([view]) as unknown[] });

    const client = await gateway.connect(key);
    const cut = client.disconnected();
    expect(await admin('DELETE', `/stores/${store.id}`, 'sk_admin_dev')).toMatchObject({ status: 204 });
    await cut;
    expect(await gateway.call('GET', '/api/v1/files', key)).toMatchObject(error(401, 'UNAUTHORIZED'));
    expect(await admin('GET', `/stores/${store.id}`, 'sk_admin_dev')).toMatchObject(error(404, 'NOT_FOUND'));
    const left = await database.asOwner(
      `select 1 from store_files where store_id = $1 union all select 1 from store_changes where store_id = $1
       union all select 1 from api_keys where store_id = $1`,
      [store.id],
    );
    expect(left).toEqual([]);
  });

  it('issue keys of the known form, show them once and store only their hash', async () => {
    const store = await gateway.aStore();
    const { key, ...issued } = await store.aKey('read');
    expect(key).toHaveLength(48);
    expect(parseStoreKey(key)).toEqual({ storeHint: store.id.replaceAll('-', '').slice(0, 6) });
    // A mistyped key is known as such without a look-up, and whoever typed it is told.
    expect(isWholeStoreKey(key)).toBe(true);
    const mistyped = key.replace(/.{3}$/, (end) => (end === 'aaa' ? 'bbb' : 'aaa'));
    expect([isWholeStoreKey(mistyped), isWholeStoreKey(key.slice(0, -1)), isWholeStoreKey(null)]).toEqual([
      false,
      false,
      false,
    ]);
    expect(await gateway.call('GET', '/api/v2/session', mistyped)).toMatchObject({
      status: 401,
      body: { error: { message: expect.stringContaining('wrong or missing') as string } },
    });
    expect(issued).toMatchObject({ name: 'laptop', permissions: ['read'], prefix: key.slice(0, 16), lastUsedAt: null });

    expect(await gateway.admin('GET', `/stores/${store.id}/keys`)).toEqual({ keys: [issued] });
    expect(await gateway.admin('GET', `/stores/${store.id}/keys/${issued.id}`)).toEqual(issued);
    const [row] = await database.asOwner<{ all: string }>('select k::text as all from api_keys k where id = $1', [
      issued.id,
    ]);
    expect(row!.all).toContain(hashApiKey(key));
    expect(row!.all).not.toContain(key.slice(16));

    await gateway.list(key);
    expect(await gateway.admin('GET', `/stores/${store.id}/keys/${issued.id}`)).toMatchObject({
      lastUsedAt: expect.any(String) as string,
    });
  });

  it('answer bad ids and bodies with a code, never with 500 (defect 16)', async () => {
    const { id } = await gateway.aStore();
    const calls: [string, string, unknown, number, string][] = [
      ['GET', '/stores/not-a-uuid', undefined, 400, 'VALIDATION_ERROR'],
      ['DELETE', "/stores/'", undefined, 400, 'VALIDATION_ERROR'],
      ['GET', '/stores/not-a-uuid/keys', undefined, 400, 'VALIDATION_ERROR'],
      ['GET', `/stores/${id}/keys/nope`, undefined, 400, 'VALIDATION_ERROR'],
      ['DELETE', `/stores/${id}/keys/nope`, undefined, 400, 'VALIDATION_ERROR'],
      ['GET', `/stores/${NOBODY}`, undefined, 404, 'NOT_FOUND'],
      ['DELETE', `/stores/${NOBODY}`, undefined, 404, 'NOT_FOUND'],
      ['POST', `/stores/${NOBODY}/keys`, { name: 'x', permissions: ['read'] }, 404, 'NOT_FOUND'],
      ['DELETE', `/stores/${id}/keys/${NOBODY}`, undefined, 404, 'NOT_FOUND'],
      ['GET', '/stores?tenantId=x', undefined, 400, 'VALIDATION_ERROR'],
      ['DELETE', `/stores/${id}?reason=a%0Ab`, undefined, 400, 'VALIDATION_ERROR'],
      ['POST', `/stores?tenantId=${NOBODY}`, { name: 'x' }, 404, 'NOT_FOUND'],
      ['POST', '/stores', { name: 'x', tenantId: NOBODY }, 404, 'NOT_FOUND'],
      ['POST', '/stores', {}, 400, 'VALIDATION_ERROR'],
      ['POST', '/stores', `${'['.repeat(400_000)}${']'.repeat(400_000)}`, 400, 'VALIDATION_ERROR'],
      ['POST', '/stores', `{"name":${'['.repeat(200_000)}${']'.repeat(200_000)}}`, 400, 'VALIDATION_ERROR'],
      ['POST', '/stores', { name: '' }, 400, 'VALIDATION_ERROR'],
      ['POST', '/stores', { name: 'a\0b' }, 400, 'VALIDATION_ERROR'],
      ['POST', `/stores/${id}/keys`, { name: 'x', permissions: [] }, 400, 'VALIDATION_ERROR'],
      ['POST', `/stores/${id}/keys`, { name: 'x', permissions: ['read', 'read'] }, 400, 'VALIDATION_ERROR'],
      ['POST', `/stores/${id}/keys`, { name: 'x', permissions: ['admin'] }, 400, 'VALIDATION_ERROR'],
      [
        'POST',
        `/stores/${id}/keys`,
        { name: 'x', permissions: ['read'], expiresAt: new Date(Date.now() - 1_000).toISOString() },
        400,
        'VALIDATION_ERROR',
      ],
    ];
    for (const [method, path, body, status, code] of calls) {
      expect([method, path, await admin(method, path, 'sk_admin_dev', body)]).toMatchObject([
        method,
        path,
        error(status, code),
      ]);
    }
  });
});

describe('the log of the tenant', () => {
  const events = async (stream: string, tenant: TenantId = DEFAULT_TENANT_ID) =>
    database.asOwner<{ type: string; data: object; actor: string; address: string; reason: string | null }>(
      `select type, data, metadata ->> 'actor' as actor, metadata ->> 'address' as address,
              metadata ->> 'reason' as reason from event_log
       where tenant_id = $1 and stream = $2 order by position`,
      [tenant, stream],
    );
  const said = { actor: 'operator:master-key', address: '127.0.0.1', reason: null };

  it('says of each key when it was issued, rotated and revoked, and from where, and nothing of the key itself', async () => {
    const query = `?tenantId=${OTHER_TENANT}`;
    const store = await gateway.aStore(query);
    const issued = await store.aKeyOf({ prefixes: ['notes'], expiresAt: '2099-01-01T00:00:00.000Z' });
    const heir = await gateway.admin<{ id: string }>('POST', `/stores/${store.id}/keys/${issued.id}/rotate${query}`, {
      overlapSeconds: 60,
    });
    const why = (reason: string) => `${query}&reason=${encodeURIComponent(reason)}`;
    await gateway.admin('DELETE', `/stores/${store.id}/keys/${issued.id}${why('it leaked')}`);
    await gateway.admin('DELETE', `/stores/${store.id}${why('moved away')}`);
    const facts = {
      store: store.id,
      name: 'laptop',
      permissions: ['read', 'write'],
      prefixes: ['notes'],
      expiresAt: '2099-01-01T00:00:00.000Z',
    };
    const first = await events(`key-${issued.id}`, OTHER_TENANT);
    expect(first).toEqual([
      { ...said, type: 'access.keyIssued', data: facts },
      { ...said, type: 'access.keyRotated', data: { store: store.id, heir: heir.id, overlapSeconds: 60 } },
      { ...said, type: 'access.keyRevoked', data: { store: store.id, reason: 'revoked' }, reason: 'it leaked' },
    ]);
    expect(await events(`key-${heir.id}`, OTHER_TENANT)).toEqual([
      { ...said, type: 'access.keyIssued', data: facts },
      { ...said, type: 'access.keyRevoked', data: { store: store.id, reason: 'storeDeleted' }, reason: 'moved away' },
    ]);
    expect(JSON.stringify(first)).not.toContain(issued.key.slice(16));
  });

  it('says what a key was refused, by REST and by socket, and who tried the admin routes', async () => {
    const { key, id } = await (await gateway.aStore()).aKey('read');
    const client = await gateway.connect(key);
    await gateway.call('PUT', '/api/v1/files', key, { path: 'a.md', content: 'x' });
    await client.send('modified-file', { path: 'a.md', content: 'x' });
    const operations = async (stream: string) =>
      (await events(stream)).filter(({ type }) => type === 'access.denied').map(({ data, actor }) => [actor, data]);
    const once = { count: 1, addresses: 1 };
    const actor = `key:${id}`;
    await eventually('both are in the log', async () => (await operations(`key-${id}`)).length === 2);
    expect(await operations(`key-${id}`)).toEqual(
      expect.arrayContaining([
        [actor, { operation: 'PUT /api/v1/files', ...once }],
        [actor, { operation: 'modified-file', ...once }],
      ]),
    );
    await admin('GET', `/stores/${NOBODY}`, 'sk_admin_wrong');
    const route = 'GET /api/v1/admin/stores/:storeId';
    await eventually('and so is who came without the master key', async () =>
      (await operations(`tenant-${DEFAULT_TENANT_ID}`)).some(
        ([who, data]) => who === 'nobody' && (data as { operation: string }).operation === route,
      ),
    );
  });

  it('says what a key was refused within a push, each kind once however often it was tried', async () => {
    const store = await gateway.aStore('', { quotaBytes: 100 });
    const { key, id } = await store.aKeyOf({ prefixes: ['mine'] });
    const device = await Device2.connect(gateway, key);
    const refused = await device.push(
      ...Array.from({ length: 50 }, (_, place) => putOf(`theirs/${place}.md`, 'x')),
      { op: 'delete', path: 'theirs/a.md' },
      putOf('../up.md', 'x'),
      putOf('mine/large.md', 'x'.repeat(101)),
      // These are part of the work, and no concern of the log.
      putOf('mine/a.md', 'x', { baseHash: hashOf('y') }),
      { op: 'rename', path: 'mine/none.md', newPath: 'mine/b.md' },
      { op: 'nonsense' },
    );
    expect(refused.filter(({ success }) => success)).toEqual([]);
    await gateway.call('POST', '/api/v2/ops', key, { ops: [{ ...putOf('theirs/b.md', 'x'), opId: NOBODY }] });
    const told = async () =>
      (await events(`key-${id}`)).flatMap(({ type, data, actor }) => {
        const { operation } = data as { operation: string };
        return type === 'access.denied' ? [`${actor} ${operation}`] : [];
      });
    await eventually('all kinds are in the log', async () => (await told()).length === 4);
    expect((await told()).toSorted()).toEqual(
      ['push delete', 'push put', 'push put: PATH_INVALID', 'push put: QUOTA_EXCEEDED'].map(
        (what) => `key:${id} ${what}`,
      ),
    );
  });
});

describe('the handshake', () => {
  it('takes the key from query or auth, and says why it refuses', async () => {
    const { key } = await (await gateway.aStore()).aKey();
    for (const via of ['query', 'auth'] as const) expect((await gateway.connect(key, via)).socket.connected).toBe(true);
    await expect(gateway.connect('')).rejects.toThrow('UNAUTHORIZED');
    await expect(gateway.connect('nonsense', 'auth')).rejects.toThrow('INVALID_KEY');
    await expect(gateway.connect(`${key.slice(0, -1)}${key.endsWith('A') ? 'B' : 'A'}`)).rejects.toThrow('INVALID_KEY');
    await expect(gateway.connect({ $ne: null } as never, 'auth')).rejects.toThrow('INVALID_KEY');
  });

  it('refuses a revoked key', async () => {
    const store = await gateway.aStore();
    const { key, id } = await store.aKey();
    await gateway.list(key);
    await gateway.admin('DELETE', `/stores/${store.id}/keys/${id}`);
    await expect(gateway.connect(key)).rejects.toThrow('INVALID_KEY');
    expect(await admin('DELETE', `/stores/${store.id}/keys/${id}`, 'sk_admin_dev')).toMatchObject(
      error(404, 'NOT_FOUND'),
    );
    expect(await gateway.admin('GET', `/stores/${store.id}/keys`)).toEqual({ keys: [] });
  });
});

describe('a revoked key', () => {
  it('stops at once: its socket is cut and writes nothing more (defect 4)', async () => {
    const store = await gateway.aStore();
    const { key, id } = await store.aKey();
    const other = await store.aKey();
    const client = await gateway.connect(key);
    await client.send('modified-file', { path: 'a.md', content: 'before' });
    const cut = client.disconnected();
    const open = async () =>
      /^sync_sockets\{.*\} (\d+)$/m.exec(await (await fetch(`${gateway.url}/metrics`)).text())?.[1];
    const before = Number(await open());

    await gateway.admin('DELETE', `/stores/${store.id}/keys/${id}`);
    expect(Number(await open())).toBe(before - 1);

    expect(await gateway.call('PUT', '/api/v1/files', key, { path: 'a.md', content: 'after' })).toMatchObject(
      error(401, 'UNAUTHORIZED'),
    );
    expect(await cut).toBe('io server disconnect');
    expect((await gateway.file(other.key, 'a.md')).body.content).toBe('before');
  });
});

describe('tenants', () => {
  it('see neither the stores nor the keys of others', async () => {
    const theirs = await gateway.aStore(`?tenantId=${OTHER_TENANT}`);
    const { key } = await theirs.aKey();
    await gateway.call('PUT', '/api/v1/files', key, { path: 'a.md', content: 'x' });

    expect(await admin('GET', `/stores/${theirs.id}`, 'sk_admin_dev')).toMatchObject(error(404, 'NOT_FOUND'));
    expect(await admin('GET', `/stores/${theirs.id}/keys`, 'sk_admin_dev')).toMatchObject(error(404, 'NOT_FOUND'));
    const own = await gateway.admin<{ stores: { id: string }[] }>('GET', '/stores');
    expect(own.stores.map(({ id }) => id)).not.toContain(theirs.id);
    const named = await gateway.admin<{ id: string }>('POST', '/stores', { name: 'named', tenantId: OTHER_TENANT });
    const all = await gateway.admin<{ stores: { id: string }[] }>('GET', `/stores?tenantId=${OTHER_TENANT}`);
    expect(all.stores.map(({ id }) => id).toSorted()).toEqual([theirs.id, named.id].toSorted());

    for (const table of ['stores', 'store_files', 'store_changes', 'api_keys']) {
      const count = `select count(*)::int as n from ${table} where tenant_id = $1`;
      const seenBy = (tenant: TenantId) => database.app.transaction(tenant, (tx) => tx.query(count, [OTHER_TENANT]));
      expect([table, await seenBy(DEFAULT_TENANT_ID)]).toEqual([table, [{ n: 0 }]]);
      expect([table, await seenBy(OTHER_TENANT)]).not.toEqual([table, [{ n: 0 }]]);
    }
    await expect(
      database.app.transaction(DEFAULT_TENANT_ID, (tx) =>
        tx.execute('insert into stores (tenant_id, id, name) values ($1, $2, $3)', [OTHER_TENANT, NOBODY, 'planted']),
      ),
    ).rejects.toThrow('row-level security');
    await expect(
      database.app.transaction(OTHER_TENANT, (tx) => tx.execute('update store_changes set path = path')),
    ).rejects.toThrow('permission denied');
    expect(await database.system.transaction((tx) => findApiKeyByHash(tx, hashApiKey(key)))).toMatchObject({
      tenantId: OTHER_TENANT,
    });
  });
});

describe('a suspended tenant', () => {
  it('is cut off within 5 s, whatever it has open, and goes on where it was when it is resumed', async () => {
    const tenant = '00000000-0000-7000-8000-0000000000ab' as TenantId;
    await database.asOwner(`insert into tenants (id, name, slug) values ($1, 'Shut', 'shut')`, [tenant]);
    const { key } = await (await gateway.aStore(`?tenantId=${tenant}`)).aKey();
    const other = await (await gateway.aStore()).aKey();
    const [client, untouched] = [await gateway.connect(key), await gateway.connect(other.key)];
    await client.send('modified-file', { path: 'a.md', content: 'before' });
    const cut = client.disconnected();
    await database.asOwner('update tenants set suspended_at = now() where id = $1', [tenant]);
    const from = performance.now();
    expect(await cut).toBe('io server disconnect');
    expect(performance.now() - from).toBeLessThan(5_000);
    expect(await gateway.file(key, 'a.md')).toMatchObject(error(401, 'UNAUTHORIZED'));
    await expect(gateway.connect(key)).rejects.toThrow(/key/i);
    expect(untouched.socket.connected).toBe(true);
    await database.asOwner('update tenants set suspended_at = null where id = $1', [tenant]);
    expect((await gateway.file(key, 'a.md')).body.content).toBe('before');
  });
});
