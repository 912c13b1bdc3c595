import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type SyncReport } from '@atomo-cc/sdk-sync';
import { Vault } from '@atomo-cc/sdk-sync/node';
import { type Changes, type DigestAnswer, EMPTY_HASH, type OpResult } from '@atomo-cc/sync-protocol';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
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

const rest = <Body>(method: string, path: string, key: string, body?: unknown) =>
  gateway.call<Body>(method, `/api/v2${path}`, key, body);

/** The code of a refusal, or that there was none. */
const codeOf = async (answer: Promise<unknown>) =>
  answer.then(
    () => 'done',
    (error: Error & { code?: string }) => error.code ?? error.message,
  );

const refusalOf = (result: OpResult) => (result.success ? 'done' : result.error.code);

describe('what a key may do', () => {
  /** Every event and route with what it needs. */
  const reads: [string, unknown][] = [
    ['pull', { epoch: randomUUID(), from: 0 }],
    ['digest', {}],
    ['download', { hash: EMPTY_HASH }],
    ['ack', { epoch: randomUUID(), through: 0 }],
    ['presence:set', { state: {} }],
    ['presence:list', {}],
  ];
  const writes: [string, unknown][] = [
    ['push', { ops: [] }],
    ['missing', { hashes: [] }],
    ['upload', { hash: hashOf('x'), bytes: Buffer.from('x') }],
  ];
  const routes: ['read' | 'write', string, string][] = [
    ['read', 'GET', '/changes?epoch=x&from=0'],
    ['read', 'GET', '/snapshot'],
    ['read', 'GET', '/digest'],
    ['read', 'GET', `/blobs/${EMPTY_HASH}`],
    ['read', 'GET', '/trash'],
    ['read', 'GET', '/conflicts'],
    ['read', 'GET', `/files/${randomUUID()}/versions`],
    ['write', 'POST', '/ops'],
    ['write', 'POST', '/blobs/missing'],
    ['write', 'PUT', `/blobs/${EMPTY_HASH}`],
    ['write', 'POST', `/files/${randomUUID()}/restore`],
  ];

  it.each(['read', 'write'] as const)(
    'with %s alone is that and nothing else, on every event and route',
    async (may) => {
      const { key } = await (await gateway.aStore()).aKey(may);
      const device = await Device2.connect(gateway, key);
      for (const [needs, events] of [
        ['read', reads],
        ['write', writes],
      ] as const) {
        for (const [event, payload] of events) {
          const code = await codeOf(device.ask(event, payload));
          expect([event, code === 'FORBIDDEN']).toEqual([event, needs !== may]);
        }
      }
      for (const [needs, method, path] of routes) {
        const { status } = await rest(method, path, key, method === 'GET' ? undefined : {});
        expect([method, path, status === 403]).toEqual([method, path, needs !== may]);
      }
      for (const [, method, path] of routes) {
        expect((await rest(method, path, 'sk_store_000000_' + 'x'.repeat(32))).status).toBe(401);
      }
    },
  );

  it('with write alone is to hand in: nothing of the store comes back, not even in a refusal', async () => {
    const store = await gateway.aStore();
    const [{ key: dropKey }, { key: fullKey }] = [await store.aKey('write'), await store.aKey()];
    const [drop, full] = [await Device2.connect(gateway, dropKey), await Device2.connect(gateway, fullKey)];
    expect(drop.ready).toMatchObject({ head: null, floor: null, digest: null, count: null, usedBytes: null });
    await full.push(putOf('secret.md', 'top secret'), putOf('other.md', 'top secret'));
    const refusals = await drop.push(
      putOf('secret.md', 'x', { baseHash: null }),
      putOf('Secret.md', 'x'),
      { op: 'rename', path: 'none.md', newPath: 'secret.md' },
      // Who knows only the hash of bytes must not learn that they are there, nor get hold of them.
      { op: 'put', path: 'copy.md', hash: hashOf('top secret'), size: 10 },
    );
    expect(refusals.map(refusalOf)).toEqual(['CONFLICT', 'PATH_COLLISION', 'CONFLICT', 'BLOB_MISSING']);
    expect(JSON.stringify(refusals.slice(0, 3))).not.toMatch(/current|existingPath|sha256|top/);
    expect(await drop.ask('missing', { hashes: [hashOf('top secret')] })).toMatchObject({
      missing: [hashOf('top secret')],
    });
    expect(await drop.op(putOf('in.md', 'x'))).toMatchObject({ success: true, seq: 3 });
    const old = await gateway.connect(dropKey);
    const told = [
      await old.send('created-file', { path: 'secret.md' }),
      await drop.push({ op: 'rename', path: 'secret.md', newPath: 'moved.md' }, putOf('other.md', 'over'), {
        op: 'delete',
        path: 'moved.md',
      }),
      await full.op(putOf('secret.md', 'top secret')),
      await gateway.call('PATCH', '/api/v1/files', dropKey, { path: 'secret.md', newPath: 'moved.md' }),
    ];
    const [created, ops, , moved] = told;
    expect([created, moved]).toMatchObject([{ success: true }, { status: 200 }]);
    expect((ops as OpResult[]).map(refusalOf)).toEqual(['done', 'done', 'done']);
    expect(JSON.stringify([created, ops, moved])).not.toContain(hashOf('top secret').slice(7));
    await full.changes(8);
    // A round trip later than the other device heard: nothing came.
    await drop.push();
    expect(drop.heard).toEqual([]);
  });
});

describe('a key of single folders', () => {
  it('sees and changes those alone, in every protocol, and what crosses their border comes or goes', async () => {
    const store = await gateway.aStore();
    const { key: fullKey } = await store.aKey();
    const full = await Device2.connect(gateway, fullKey);
    const { key } = await store.aKeyOf({ prefixes: ['Team/notes', 'shared'] });
    const scoped = await Device2.connect(gateway, key);
    const old = await gateway.connect(key);
    await full.push(
      putOf('private.md', 'p'),
      putOf('team/Notes/a.md', 'a'),
      { op: 'rename', path: 'private.md', newPath: 'shared/now.md' },
      { op: 'rename', path: 'team/Notes/a.md', newPath: 'team/a.md' },
      putOf('team/notesbook.md', 'no'),
      { op: 'delete', path: 'shared/now.md' },
      putOf('shared/last.md', 'l'),
    );
    const heard = await scoped.changes(7);
    expect(heard.map(({ seq, op, path, hash, oldHash }) => [seq, op, path, hash, oldHash])).toEqual([
      [2, 'put', 'team/Notes/a.md', hashOf('a'), null],
      [3, 'put', 'shared/now.md', hashOf('p'), null],
      [4, 'delete', 'team/Notes/a.md', null, hashOf('a')],
      [6, 'delete', 'shared/now.md', null, hashOf('p')],
      [7, 'put', 'shared/last.md', hashOf('l'), null],
    ]);
    expect((await old.take(5)).map(([event, { path, seq }]) => [event, path, seq])).toEqual([
      ['file-created', 'team/Notes/a.md', 2],
      ['file-created', 'shared/now.md', 3],
      ['file-deleted', 'team/Notes/a.md', 4],
      ['file-deleted', 'shared/now.md', 6],
      ['file-created', 'shared/last.md', 7],
    ]);
    // Whichever way it asks, it is the same.
    const { epoch } = scoped.ready;
    expect(await scoped.ask<Changes>('pull', { epoch, from: 0 })).toMatchObject({
      from: 0,
      through: 7,
      changes: heard.map(({ seq, path }) => ({ seq, path })),
    });
    expect((await gateway.snapshot(key)).files.map(({ path }) => path)).toEqual(['shared/last.md']);
    expect(await scoped.ask<DigestAnswer>('digest')).toMatchObject({ count: 1 });
    expect((await rest('GET', '/session', key)).body).toMatchObject({ count: 1, head: 7 });
    expect((await gateway.list(key)).files.map(({ path }) => path)).toEqual(['shared/last.md']);
    expect(
      (await rest<{ files: { path: string }[] }>('GET', '/trash', key)).body.files.map(({ path }) => path),
    ).toEqual(['shared/now.md']);
    expect((await gateway.file(key, 'team/a.md')).status).toBe(403);

    const refusals = await scoped.push(
      putOf('team/x.md', 'x'),
      { op: 'delete', path: 'team/a.md' },
      { op: 'rename', path: 'shared/last.md', newPath: 'last.md' },
      { op: 'delete-folder', path: 'team' },
      { op: 'rename-folder', path: 'shared', newPath: 'mine' },
      { op: 'put', path: 'shared/copy.md', hash: hashOf('no'), size: 2 },
    );
    expect(refusals.map(refusalOf)).toEqual([...Array.from({ length: 5 }, () => 'FORBIDDEN'), 'BLOB_MISSING']);
    expect(await old.send('modified-file', { path: 'team/x.md', content: '' })).toMatchObject({
      success: false,
      error: { code: 'FORBIDDEN' },
    });
    // Bytes that are, or were, in its folders are its business; others are not, although it knows their hash.
    expect((await rest('GET', `/blobs/${hashOf('no')}`, key)).status).toBe(404);
    expect(await scoped.ask('download', { hash: hashOf('p') })).toMatchObject({ size: 1 });
    expect(await scoped.op({ op: 'put', path: 'shared/p.md', hash: hashOf('p'), size: 1 })).toMatchObject({
      success: true,
    });
    // DELETE /files/all deletes what it sees.
    expect((await gateway.call('DELETE', '/api/v1/files/all', key)).body).toMatchObject({ deleted: 2 });
    expect((await gateway.snapshot(fullKey)).files.map(({ path }) => path)).toEqual(['team/a.md', 'team/notesbook.md']);
    await expect(scoped.ask('presence:list')).rejects.toMatchObject({ code: 'FORBIDDEN' });
  });
});

describe('the end of a key', () => {
  it('comes by itself, is told, and cuts what is open', async () => {
    const store = await gateway.aStore();
    // A life that is long enough to connect, however slow this machine is.
    const born = async (lifeMs: number): Promise<{ key: string; device: Device2 }> => {
      const { key } = await store.aKeyOf({ expiresAt: new Date(Date.now() + lifeMs).toISOString() });
      const device = await Device2.connect(gateway, key).catch(() => null);
      return device ? { key, device } : born(2 * lifeMs);
    };
    const { key, device } = await born(1_500);
    await device.disconnected();
    expect(device.heard).toEqual([{ event: 'revoked', payload: { code: 'KEY_EXPIRED' } }]);
    expect((await rest('GET', '/session', key)).status).toBe(401);
    await expect(Device2.connect(gateway, key)).rejects.toThrow('INVALID_KEY');
  });

  it('of a rotated one comes after the overlap, and its heir may do the same', async () => {
    const store = await gateway.aStore();
    const old = await store.aKeyOf({ prefixes: ['a'], permissions: ['read'] });
    const rotate = (overlapSeconds?: number) =>
      gateway.admin<{ key: string; id: string }>('POST', `/stores/${store.id}/keys/${old.id}/rotate`, {
        overlapSeconds,
      });
    const heir = await rotate(3_600);
    expect(heir).toMatchObject({ prefixes: ['a'], permissions: ['read'], expiresAt: null });
    const [device, next] = [await Device2.connect(gateway, old.key), await Device2.connect(gateway, heir.key)];
    expect(device.ready.key.expiresAt).not.toBeNull();
    const cut = device.disconnected();
    await rotate();
    await cut;
    expect(device.heard[0]!.event).toBe('revoked');
    expect((await rest('GET', '/session', old.key)).status).toBe(401);
    expect(next.socket.connected).toBe(true);
    await expect(rotate()).rejects.toThrow('404');
  });

  it('by revocation is told to protocol 2, and its next event meets KEY_REVOKED at the latest', async () => {
    const store = await gateway.aStore();
    const issued = await store.aKey();
    const device = await Device2.connect(gateway, issued.key);
    await gateway.admin('DELETE', `/stores/${store.id}/keys/${issued.id}`);
    await device.disconnected();
    expect(device.heard).toEqual([{ event: 'revoked', payload: { code: 'KEY_REVOKED' } }]);
  });
});

describe('a folder that is given another key', () => {
  it('loses no file by one of fewer folders, and takes up what both have when it gets the old one back', async () => {
    const store = await gateway.aStore();
    const [whole, part] = [await store.aKeyOf({}), await store.aKeyOf({ prefixes: ['team'] })];
    const root = fs.mkdtempSync(path.join(os.tmpdir(), 'scope-'));
    const on = (name: string) => path.join(root, name);
    const read = (name: string) => fs.readFileSync(on(name), 'utf8');
    const sync = async (key: string): Promise<SyncReport> => {
      const wishes = {
        server: gateway.url,
        exclude: [],
        device: 'laptop',
        massDelete: 'ask',
        onConflict: 'copy',
      } as const;
      const vault = await Vault.open({ ...wishes, folder: root, key });
      try {
        return await vault.once();
      } finally {
        await vault.close();
      }
    };
    try {
      fs.mkdirSync(on('team'));
      for (const name of ['own.md', 'team/a.md', 'team/gone.md']) fs.writeFileSync(on(name), name);
      await sync(whole.key);
      // Meanwhile one file of the folder is changed elsewhere, and one is deleted here.
      const elsewhere = await Device2.connect(gateway, whole.key);
      await elsewhere.op(putOf('team/a.md', 'changed', { baseHash: hashOf('team/a.md') }));
      fs.rmSync(on('team/gone.md'));
      const { refused } = await sync(part.key);
      expect(refused).toEqual([
        expect.objectContaining({ path: 'own.md', reason: 'The path lies outside of the folders of this key.' }),
      ]);
      expect([read('own.md'), read('team/a.md'), fs.existsSync(on('team/gone.md'))]).toEqual([
        'own.md',
        'changed',
        false,
      ]);

      await elsewhere.op(putOf('new.md', 'new'));
      expect((await sync(whole.key)).refused).toEqual([]);
      expect(
        fs
          .readdirSync(root)
          .filter((name) => !name.startsWith('.'))
          .toSorted(),
      ).toEqual(['new.md', 'own.md', 'team']);
      const { files } = await gateway.snapshot(whole.key);
      expect(files.map((file) => file.path).toSorted()).toEqual(['new.md', 'own.md', 'team/a.md']);
    } finally {
      fs.rmSync(root, { recursive: true });
    }
  });
});
