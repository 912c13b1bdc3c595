import { io, type Socket } from 'socket.io-client';
import { theSystem } from './the-system.js';

const MASTER_KEY = 'sk_admin_dev';

describe('sync-gateway', () => {
  let url: string;
  let key: string;
  const sockets: Socket[] = [];

  const admin = async (path: string, body: object): Promise<Record<string, string>> => {
    const response = await fetch(`${url}/api/v1/admin/stores${path}`, {
      method: 'POST',
      headers: { 'x-api-key': MASTER_KEY, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    expect(response.status).toBe(201);
    return (await response.json()) as Record<string, string>;
  };
  const connect = async (apiKey: string): Promise<Socket> => {
    const socket = io(url, { transports: ['websocket'], query: { apiKey }, reconnection: false, forceNew: true });
    sockets.push(socket);
    await new Promise<void>((done, failed) => {
      socket.once('connect', () => done());
      socket.once('connect_error', failed);
    });
    return socket;
  };
  const next = (socket: Socket, event: string) =>
    new Promise<Record<string, unknown>>((done) => socket.once(event, done));

  beforeAll(async () => {
    url = theSystem().services['sync-gateway'].url;
    const store = await admin('', { name: 'e2e vault' });
    key = (await admin(`/${store['id']}/keys`, { name: 'laptop', permissions: ['read', 'write'] }))['key']!;
  });
  afterAll(() => sockets.forEach((socket) => socket.disconnect()));

  it('carries an edit from one client to the others, in the order of the store', async () => {
    const [laptop, phone] = [await connect(key), await connect(key)];
    const created = next(phone, 'file-created');
    const first = (await laptop.emitWithAck('modified-file', { path: 'notes/a.md', content: 'one' })) as {
      success: boolean;
      seq: number;
      hash: string;
    };
    expect(first).toMatchObject({ success: true });
    expect(await created).toMatchObject({
      path: 'notes/a.md',
      content: 'one',
      hash: first.hash,
      seq: first.seq,
      isBinary: false,
    });

    const modified = next(phone, 'file-modified');
    const second = (await laptop.emitWithAck('modified-file', { path: 'notes/a.md', content: 'two' })) as {
      seq: number;
    };
    expect(await modified).toMatchObject({ content: 'two', seq: second.seq });
    expect(second.seq).toBeGreaterThan(first.seq);

    const listed = await fetch(`${url}/api/v1/files?limit=10`, { headers: { 'x-api-key': key } });
    expect(await listed.json()).toMatchObject({ total: 1, files: [{ path: 'notes/a.md', size: 3 }] });

    const deleted = next(phone, 'file-deleted');
    expect(await laptop.emitWithAck('deleted-file', { path: 'notes/a.md' })).toMatchObject({ success: true });
    expect(await deleted).toMatchObject({ path: 'notes/a.md' });
  });

  it('lives through payloads and callbacks that make no sense', async () => {
    const socket = await connect(key);
    for (const payload of [
      null,
      7,
      'text',
      [],
      { path: 7 },
      { path: '../../etc/passwd', content: 'x' },
      JSON.parse('{"__proto__":{"path":"x"}}'),
    ]) {
      socket.emit('modified-file', payload);
      socket.emit('modified-file', payload, 'no function');
      expect(await socket.emitWithAck('modified-file', payload)).toMatchObject({
        success: false,
        error: { code: 'VALIDATION_ERROR' },
      });
    }
    socket.emit('created-file');
    expect(await socket.emitWithAck('modified-file', { path: 'still.md', content: 'here' })).toMatchObject({
      success: true,
    });
    expect((await fetch(`${url}/health/ready`)).status).toBe(200);
  });

  it('refuses strangers at the door', async () => {
    await expect(connect('sk_store_000000_nobody')).rejects.toMatchObject({ message: 'INVALID_KEY' });
    await expect(connect('')).rejects.toMatchObject({ message: 'UNAUTHORIZED' });
    expect((await fetch(`${url}/api/v1/files`)).status).toBe(401);
    expect((await fetch(`${url}/api/v1/admin/stores`, { headers: { 'x-api-key': key } })).status).toBe(403);
  });
});
