import { createHash, randomUUID } from 'node:crypto';
import {
  CLIENT_MESSAGES,
  type ClientEvent,
  EMPTY_HASH,
  type KeyView,
  type Permission,
  type Ready,
  type Route,
  ROUTES,
} from '@atomo-cc/sync-protocol';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { type Client, Device2, putOf, sampleOf, TestGateway } from '../testing/index.js';

/** A key, and what may be expected of it. */
interface Bearer {
  readonly name: string;
  readonly key: string | undefined;
  readonly kind: 'store' | 'master' | 'wrong master' | 'nobody';
  readonly may: readonly Permission[];
  /** What of the store it has to do with. */
  readonly part: 'all' | 'a folder' | 'nothing';
}

const SECRET = 'nobody else may read this';
const PLACE = 'outside/secret.md';

let database: TestDatabase;
let gateway: TestGateway;
let bearers: Bearer[];
let full: string;
/** What may reach nobody who may not read it. */
let secrets: string[];

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  gateway = await TestGateway.start(database.url, { environment: { SYNC_OPS_PER_SECOND: '100000' } });
  const store = await gateway.aStore();
  const ended = async (key: Required<KeyView>) => {
    await gateway.admin('DELETE', `/stores/${store.id}/keys/${key.id}`);
    return key.key;
  };
  full = (await store.aKey()).key;
  const nobody = (name: string, key: string | undefined, kind: Bearer['kind'] = 'nobody'): Bearer => ({
    name,
    key,
    kind,
    may: [],
    part: 'nothing',
  });
  const holder = (part: Bearer['part'], may: Permission[], { key }: { key: string }): Bearer => ({
    name: `a key of ${part} that may ${may.join(' and ')}`,
    key,
    kind: 'store',
    may,
    part,
  });
  const expired = await store.aKey();
  await database.asOwner(`update api_keys set expires_at = now() - interval '1 second' where id = $1`, [expired.id]);
  const ofFolder = async (...permissions: Permission[]) =>
    holder('a folder', permissions, await store.aKeyOf({ permissions, prefixes: ['inside'] }));
  // Those that may change most come last: what they do is no secret any more.
  bearers = [
    nobody('no key', undefined),
    nobody('an unknown key', `sk_store_000000_${'x'.repeat(32)}`),
    nobody('a malformed key', 'key'),
    nobody('an expired key', expired.key),
    nobody('a revoked key', await ended(await store.aKey())),
    nobody('a wrong master key', 'sk_admin_wrong', 'wrong master'),
    nobody('the master key', 'sk_admin_dev', 'master'),
    { ...holder('nothing', ['read', 'write'], await (await gateway.aStore()).aKey()) },
    await ofFolder('read'),
    await ofFolder('write'),
    await ofFolder('read', 'write'),
    holder('all', ['read'], await store.aKey('read')),
    holder('all', ['write'], await store.aKey('write')),
    holder('all', ['read', 'write'], { key: full }),
  ];
  const device = await Device2.connect(gateway, full);
  await device.push(putOf('inside/a.md', 'a'), putOf(PLACE, SECRET), putOf('outside/gone.md', `${SECRET}!`));
  await device.op({ op: 'delete', path: 'outside/gone.md' });
  const hash = (text: string) => createHash('sha256').update(text).digest('hex');
  const base64 = (text: string) => Buffer.from(text).toString('base64').slice(0, -4);
  secrets = [SECRET, base64(SECRET), hash(SECRET), hash(`${SECRET}!`), 'gone.md'];
  device.socket.disconnect();
});

afterAll(async () => {
  await gateway.stop();
  await database.drop();
});

const head = async () => (await gateway.call<Ready>('GET', '/api/v2/session', full)).body.head;

/** What a route must answer, by its table and by what the key is: a status, or that it is let in. */
function decision({ needs }: Route, { kind, key, may }: Bearer): 401 | 403 | 'in' {
  if (needs === 'no key') return 'in';
  if (needs === 'master') {
    if (kind === 'master') return 'in';
    return key === undefined || kind === 'wrong master' ? 401 : 403;
  }
  if (kind !== 'store') return 401;
  return needs.every((permission) => may.includes(permission)) ? 'in' : 403;
}

/** A well-formed call of a route, about the file that is a secret. */
async function called(route: Route, key: string | undefined, isFull: boolean) {
  const path = route.path.replace(/\{(\w+)\}/g, (_all, name) => (name === 'hash' ? EMPTY_HASH : randomUUID()));
  const query = new URLSearchParams();
  for (const [name, { schema, ...field }] of Object.entries(route.query?.fields ?? {})) {
    if (name === 'path' && isFull) query.set(name, PLACE);
    else if (!('isOptional' in field)) query.set(name, String(sampleOf(schema, PLACE)));
  }
  const isBytes = route.body === 'bytes';
  const body = typeof route.body === 'object' ? JSON.stringify(sampleOf(route.body.schema, PLACE)) : '';
  const response = await fetch(`${gateway.url}${path}?${query.toString()}`, {
    method: route.method,
    headers: {
      ...(key !== undefined && { 'x-api-key': key }),
      ...(route.body && { 'content-type': isBytes ? 'application/octet-stream' : 'application/json' }),
    },
    ...(route.body && { body }),
  });
  const namesPlace = query.get('path') === PLACE || body.includes(PLACE);
  return { status: response.status, text: await response.text(), namesPlace };
}

const leaks = (text: string) => secrets.filter((secret) => text.includes(secret));

/** Tries what may change nothing all at once, and sees that nothing is changed; then the rest, one after the other. */
async function tryAll(
  where: string,
  cells: { mayChange: boolean; run: () => Promise<unknown[]> }[],
): Promise<unknown[]> {
  const before = await head();
  const wrong = (await Promise.all(cells.filter(({ mayChange }) => !mayChange).map(({ run }) => run()))).flat();
  if ((await head()) !== before) wrong.push([where, 'changed the store']);
  for (const { mayChange, run } of cells) if (mayChange) wrong.push(...(await run()));
  return wrong;
}

it('every key meets every route as its table says, changes nothing where it may not, and learns no secret', async () => {
  const wrong: unknown[] = [];
  for (const bearer of bearers) {
    const variants = ROUTES.flatMap((route) =>
      (route.query?.fields['path'] ? [false, true] : [false]).map((isFull) => ({ route, isFull })),
    );
    const isTold = bearer.part === 'all' && bearer.may.includes('read');
    const cells = variants.map(({ route, isFull }) => ({
      mayChange: decision(route, bearer) === 'in' && bearer.may.includes('write') && bearer.part !== 'nothing',
      run: async () => {
        const { status, text, namesPlace } = await called(route, bearer.key, isFull);
        const isOutside = bearer.part === 'a folder' && namesPlace && route.protocol === 1;
        const allowed = decision(route, bearer);
        const wanted = allowed === 'in' && isOutside ? 403 : allowed;
        const where = `${bearer.name}: ${route.method} ${route.path}`;
        const found = status === 401 || status === 403 ? status : 'in';
        return [
          ...(found !== wanted || status >= 500 ? [[where, wanted, status]] : []),
          ...(!isTold && leaks(text).length > 0 ? [[where, 'learnt', leaks(text)]] : []),
        ];
      },
    }));
    wrong.push(...(await tryAll(bearer.name, cells)));
  }
  expect(wrong).toEqual([]);
}, 120_000);

/** What an event must answer: the code of a refusal, or that it is let in. */
function admission(
  event: ClientEvent,
  { may, part }: Bearer,
  protocol: 1 | 2,
): 'FORBIDDEN' | 'VALIDATION_ERROR' | 'in' {
  if (event.protocol === 2 && protocol === 1) return 'VALIDATION_ERROR';
  if (!may.includes(event.needs)) return 'FORBIDDEN';
  if (part === 'a folder' && (event.isOfWholeStore || event.protocol === 1)) return 'FORBIDDEN';
  return 'in';
}

it('every key meets every event as its table says, over sockets of both protocols, and hears what it may', async () => {
  const writer = await Device2.connect(gateway, full);
  await writer.push(putOf('inside/a.md', 'a'), putOf(PLACE, SECRET));
  const wrong: unknown[] = [];
  const open: { bearer: Bearer; protocol: 1 | 2; client: Client }[] = [];
  for (const bearer of bearers) {
    for (const protocol of [1, 2] as const) {
      const hello = { ...(bearer.key !== undefined && { apiKey: bearer.key }) };
      const auth = protocol === 1 ? hello : { ...hello, protocol, device: { id: 'matrix' } };
      const client = await gateway.connectWith(auth).catch((error: Error) => error.message);
      const refusal = bearer.key === undefined ? 'UNAUTHORIZED' : 'INVALID_KEY';
      if (typeof client !== 'string') open.push({ bearer, protocol, client });
      if (
        (bearer.kind === 'store') !== (typeof client !== 'string') ||
        (typeof client === 'string' && client !== refusal)
      ) {
        wrong.push([bearer.name, protocol, 'connects', client]);
      }
    }
  }
  // All of them are there when the secrets change.
  await writer.push(
    putOf(PLACE, `${SECRET}!`),
    { op: 'rename', path: PLACE, newPath: 'outside/gone.md' },
    { op: 'delete', path: 'outside/gone.md' },
    putOf(PLACE, SECRET),
  );
  for (const { bearer, protocol, client } of open) {
    const isTold = bearer.part === 'all' && bearer.may.includes('read');
    const cells = CLIENT_MESSAGES.map((event) => {
      const wanted = admission(event, bearer, protocol);
      return {
        mayChange: wanted === 'in' && bearer.may.includes('write') && bearer.part === 'all',
        run: async () => {
          const payload = event.payload ? [sampleOf(event.payload.schema, PLACE)] : [];
          const ack = (await client.send(event.event, ...payload)) as { success: boolean; error?: { code: string } };
          const code = ack.error?.code ?? 'in';
          const found = code === 'FORBIDDEN' || (wanted === 'VALIDATION_ERROR' && code === wanted) ? code : 'in';
          const where = `${bearer.name}, protocol ${protocol}: ${event.event}`;
          const learnt = leaks(JSON.stringify(ack));
          return [
            ...(found !== wanted || code === 'INTERNAL_ERROR' ? [[where, wanted, code]] : []),
            ...(!isTold && learnt.length > 0 ? [[where, 'learnt', learnt]] : []),
          ];
        },
      };
    });
    wrong.push(...(await tryAll(`${bearer.name}, protocol ${protocol}`, cells)));
  }
  for (const { bearer, protocol, client } of open) {
    const heard = client.heard.filter(({ event }) => event !== 'ready');
    const where = `${bearer.name}, protocol ${protocol}`;
    if (!bearer.may.includes('read') && heard.length > 0) wrong.push([where, 'heard', heard[0]]);
    if (bearer.part !== 'all' && leaks(JSON.stringify(heard)).length > 0) wrong.push([where, 'heard secrets']);
    if (bearer.part === 'all' && bearer.may.includes('read') && leaks(JSON.stringify(heard)).length === 0) {
      wrong.push([where, 'heard nothing of the secrets, so that this test proves nothing']);
    }
    client.socket.disconnect();
  }
  expect(wrong).toEqual([]);
}, 120_000);
