import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { Device2, Plugin, putOf, TestGateway } from '../testing/index.js';

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

const ISO = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string;

async function twoPlugins() {
  const { key } = await (await gateway.aStore()).aKey();
  const [desk, phone] = [new Plugin(gateway.url, key), new Plugin(gateway.url, key)];
  await desk.connect();
  await phone.connect();
  const contents = (plugin: Plugin) =>
    Object.fromEntries(
      [...plugin.vault].map(([path, { content }]) => [path, content] as const).toSorted(([x], [y]) => (x < y ? -1 : 1)),
    );
  /** Waits until both vaults are as they should be, and answers what the store has then. */
  const same = async (wanted: Record<string, string>) => {
    const is = (plugin: Plugin) => JSON.stringify(contents(plugin)) === JSON.stringify(wanted);
    await eventually(`both vaults have ${JSON.stringify(wanted)}`, () => is(desk) && is(phone));
    return (await gateway.list(key)).files.map(({ path }) => path);
  };
  return { key, desk, phone, same };
}

describe('the plugin of protocol 1', () => {
  it('keeps two vaults the same while both are open', async () => {
    const { desk, phone, same } = await twoPlugins();
    await desk.write('Daily/1.md', '');
    await desk.write('Daily/1.md', 'one');
    await phone.write('img/a.png', 'AAEC');
    expect(await same({ 'Daily/1.md': 'one', 'img/a.png': 'AAEC' })).toEqual(['Daily/1.md', 'img/a.png']);
    await phone.rename('Daily/1.md', 'Daily/2.md');
    await desk.remove('img/a.png');
    expect(await same({ 'Daily/2.md': 'one' })).toEqual(['Daily/2.md']);
    desk.disconnect();
    phone.disconnect();
  });

  it('catches up after it was away: deletions, renames, new files, and the newer of two edits', async () => {
    const { desk, phone, same } = await twoPlugins();
    await desk.write('gone.md', 'x');
    await desk.write('old.md', 'moved');
    await desk.write('both.md', 'first');
    expect(await same({ 'both.md': 'first', 'gone.md': 'x', 'old.md': 'moved' })).toEqual([
      'both.md',
      'gone.md',
      'old.md',
    ]);
    phone.disconnect();
    await desk.remove('gone.md');
    await desk.rename('old.md', 'new.md');
    await desk.write('both.md', 'of the desk');
    phone.vault.set('both.md', { content: 'of the phone', modifiedAt: Date.now() + 60_000 });
    phone.vault.set('mine.md', { content: 'offline', modifiedAt: Date.now() });
    await phone.connect();
    expect(await same({ 'both.md': 'of the phone', 'mine.md': 'offline', 'new.md': 'moved' })).toEqual([
      'both.md',
      'mine.md',
      'new.md',
    ]);
    desk.disconnect();
    phone.disconnect();
  });

  it('starts over from one side, and the others follow', async () => {
    const { desk, phone, same } = await twoPlugins();
    await desk.write('a.md', 'a');
    await phone.write('b.md', 'b');
    expect(await same({ 'a.md': 'a', 'b.md': 'b' })).toEqual(['a.md', 'b.md']);
    phone.disconnect();
    phone.vault.delete('a.md');
    phone.vault.set('c.md', { content: 'c', modifiedAt: Date.now() });
    expect(await phone.forcePush()).toBe(2);
    await phone.connect();
    expect(await same({ 'b.md': 'b', 'c.md': 'c' })).toEqual(['b.md', 'c.md']);
    desk.disconnect();
    phone.disconnect();
  });

  it('pushes and pulls its settings, which are no files of the store', async () => {
    const { key, desk, phone, same } = await twoPlugins();
    const device = await Device2.connect(gateway, key);
    desk.configuration.set('app.json', '{"a":1}').set('plugins/x/main.js', 'run()');
    phone.configuration.set('hotkeys.json', '{}');
    expect(await desk.pushSettings()).toBe(0);
    await phone.pullSettings();
    expect(phone.configuration).toEqual(desk.configuration);
    desk.configuration.delete('plugins/x/main.js');
    expect(await desk.pushSettings()).toBe(2);
    await phone.pullSettings();
    expect([...phone.configuration]).toEqual([['app.json', '{"a":1}']]);

    expect(await gateway.call('GET', '/api/v1/settings', key)).toEqual({
      status: 200,
      body: {
        settings: [
          {
            path: 'app.json',
            hash: expect.stringMatching(/^sha256:/) as string,
            size: 7,
            isBinary: false,
            extension: 'json',
            createdAt: ISO,
            updatedAt: ISO,
          },
        ],
        total: 1,
      },
    });
    // Neither a force push nor the log has to do with them.
    await desk.forcePush();
    expect(await gateway.call('GET', '/api/v1/settings?path=app.json', key)).toMatchObject({
      status: 200,
      body: { content: '{"a":1}' },
    });
    await device.op(putOf('last.md', 'x'));
    expect((await device.changes(1)).map(({ path }) => path)).toEqual(['last.md']);
    expect(await same({ 'last.md': 'x' })).toEqual(['last.md']);
    desk.disconnect();
    phone.disconnect();
  });

  it('meets the rules for paths, keys and sizes in settings too', async () => {
    const store = await gateway.aStore();
    const [{ key }, folder, readOnly, dropBox] = [
      await store.aKey(),
      await store.aKeyOf({ prefixes: ['plugins'] }),
      await store.aKey('read'),
      await store.aKey('write'),
    ];
    const settings = (method: string, query: string, by: string, body?: unknown) =>
      gateway.call<{ error: { code: string } }>(method, `/api/v1/settings${query}`, by, body);
    const codeOf = async (answer: ReturnType<typeof settings>) => {
      const { status, body } = await answer;
      return status < 300 ? status : body.error.code;
    };
    expect(await codeOf(settings('PUT', '', key, { path: '../x', content: '' }))).toBe('VALIDATION_ERROR');
    expect(await codeOf(settings('PUT', '', key, { path: 'x', content: 'a\0' }))).toBe('VALIDATION_ERROR');
    expect(await codeOf(settings('PUT', '', key, { path: 'x', content: 'y'.repeat(1_500_000) }))).toBe(200);
    expect(await codeOf(settings('PUT', '', folder.key, { path: 'x', content: '' }))).toBe('FORBIDDEN');
    expect(await codeOf(settings('PUT', '', folder.key, { path: 'plugins/x', content: '' }))).toBe(200);
    expect(await codeOf(settings('GET', '?path=x', folder.key))).toBe('FORBIDDEN');
    expect((await settings('GET', '', folder.key)).body).toMatchObject({ total: 1, settings: [{ path: 'plugins/x' }] });
    expect((await settings('DELETE', '/all', folder.key)).body).toEqual({ deleted: 1 });
    expect(await codeOf(settings('PUT', '', readOnly.key, { path: 'x', content: '' }))).toBe('FORBIDDEN');
    expect(await codeOf(settings('GET', '', dropBox.key))).toBe('FORBIDDEN');
    expect(await codeOf(settings('DELETE', '?path=X', dropBox.key))).toBe(204);
    expect(await codeOf(settings('GET', '?path=x', key))).toBe('NOT_FOUND');
    expect((await settings('GET', '', key)).body).toEqual({ settings: [], total: 0 });
  });
});
