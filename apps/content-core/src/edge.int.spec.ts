import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { aContentCore, type RunningContentCore } from './testing/index.js';

/** A process of its own, on a busy machine. */
jest.setTimeout(90_000);

const FRIEND = 'https://app.example.com';
let database: TestDatabase;
let core: RunningContentCore;
let token: string;

beforeAll(async () => {
  database = await aDatabase([]);
  core = await aContentCore(database, { CORS_ORIGINS: `${FRIEND},http://localhost:5173`, INTROSPECTION: 'off' });
  token = await core.logIn();
});

afterAll(async () => {
  await core?.stop();
  await database?.drop();
});

const graphql = (headers: Record<string, string>, body = '{"query":"{ me { id } }"}', search = '') =>
  fetch(`${core.url}/graphql${search}`, {
    method: 'POST',
    body,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
  });

describe('pages of other origins', () => {
  const preflight = (origin: string, path = '/graphql') =>
    fetch(core.url + path, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,content-type',
      },
    });

  test.each(['/graphql', '/auth/login', '/meta/schema'])('that are listed may call %s', async (path) => {
    const { headers } = await preflight(FRIEND, path);
    expect(headers.get('access-control-allow-origin')).toBe(FRIEND);
    expect(headers.get('access-control-allow-headers')).toContain('authorization');
    // Nothing rests on cookies, so none are ever asked for.
    expect(headers.get('access-control-allow-credentials')).toBeNull();
  });

  test.each([
    'https://evil.example',
    'null',
    `${FRIEND}.evil.example`,
    'http://app.example.com',
    'https://APP.example.com:444',
  ])('%s may not', async (origin) => {
    for (const response of [await preflight(origin), await graphql({ origin })])
      expect(response.headers.get('access-control-allow-origin')).not.toBe(origin);
    expect((await graphql({ origin })).headers.get('access-control-allow-origin')).toBeNull();
  });
});

test.each(['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x'])(
  'what a form of another page can send without asking (%s) carries nothing out',
  async (type) => {
    const mutation = '{"query":"mutation { createContact(input: { name: \\"Eve\\" }) { id } }"}';
    expect((await graphql({ 'content-type': type }, mutation)).status).toBeGreaterThanOrEqual(400);
    expect(await database.asOwner('select 1 from model_contact')).toEqual([]);
  },
);

test('nothing that a browser sends by itself is a login', async () => {
  for (const headers of [
    { cookie: `accessToken=${token}; token=${token}` },
    { cookie: `authorization=Bearer ${token}` },
  ])
    expect((await graphql({ authorization: '', ...headers })).status).toBe(401);
  expect((await graphql({ authorization: '' }, undefined, `?access_token=${token}&token=${token}`)).status).toBe(401);
  const login = await fetch(`${core.url}/auth/login`, {
    method: 'POST',
    body: '{}',
    headers: { 'content-type': 'application/json' },
  });
  expect(login.headers.getSetCookie()).toEqual([]);
});

test('the tenant is that of the token, whatever the request says of another', async () => {
  const other = '00000000-0000-7000-8000-0000000000ff';
  const [{ tenant_id: own }] = (await database.asOwner<{ tenant_id: string }>('select tenant_id from users')) as [
    { tenant_id: string },
  ];
  const mutation = 'mutation { createCompany(input: { name: "Orchard" }) { id } }';
  const names = [
    'x-tenant-id',
    'tenant',
    'tenant-id',
    'x-tenant',
    'x-atomo-tenant',
    'x-forwarded-tenant',
    'app.tenant_id',
  ];
  const smuggled = Object.fromEntries(names.map((name) => [name, other]));
  const body = JSON.stringify({
    query: mutation,
    tenantId: other,
    extensions: { tenantId: other },
    principal: { tenantId: other },
  });
  const answer = await graphql(smuggled, body, `?tenantId=${other}&tenant=${other}`);
  expect(await answer.json()).toMatchObject({ data: { createCompany: { id: expect.any(String) } } });
  expect(await database.asOwner('select distinct tenant_id from model_company')).toEqual([{ tenant_id: own }]);
  expect(await database.asOwner('select distinct tenant_id from event_log')).toEqual([{ tenant_id: own }]);
});

test.each([
  ['/graphql', 'errors'],
  ['/auth/login', 'error'],
])('a body of more than a megabyte at %s is refused with a code', async (path, member) => {
  const response = await fetch(core.url + path, {
    method: 'POST',
    body: JSON.stringify({ query: 'x'.repeat(2 ** 20), email: 'a' }),
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
  });
  expect([400, 413]).toContain(response.status);
  expect(JSON.stringify(((await response.json()) as Record<string, unknown>)[member])).toContain('VALIDATION_ERROR');
});

test.each(['/auth/login', '/auth/refresh', '/auth/password', '/graphql'])(
  'a body at %s that is nested without end, or is a form, is refused with a code and leaves the log quiet',
  async (path) => {
    const before = core.output().length;
    const deep = (open: string, close: string, times: number) => `${open.repeat(times)}1${close.repeat(times)}`;
    for (const [body, type] of [
      [deep('[', ']', 400_000), 'application/json'],
      [deep('{"a":', '}', 100_000), 'application/json'],
      [`{"email":${deep('{"a":', '}', 5_000)},"query":${deep('[', ']', 5_000)}}`, 'application/json'],
      ['email=admin%40atomo.local&password=atomo-dev', 'application/x-www-form-urlencoded'],
      ['{"email":"admin@atomo.local","password":"atomo-dev"}', 'text/plain'],
    ] as const) {
      const headers = { authorization: `Bearer ${token}`, 'content-type': type };
      const response = await fetch(core.url + path, { method: 'POST', body, headers });
      expect([400, 415]).toContain(response.status);
      expect(await response.text()).toContain('VALIDATION_ERROR');
    }
    expect(core.output().slice(before)).toBe('');
  },
);

test('every answer has the headers that keep browsers from framing, running and guessing', async () => {
  for (const response of [
    await graphql({}),
    await fetch(`${core.url}/meta/schema`),
    await fetch(`${core.url}/nowhere`),
  ]) {
    expect(response.headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
    expect(response.headers.get('x-content-type-options')).toBe('nosniff');
  }
});

test('where introspection is off nobody sees the schema', async () => {
  const response = await graphql({}, '{"query":"{ __schema { types { name } } }"}');
  const { data, errors } = (await response.json()) as { data?: unknown; errors: { message: string }[] };
  expect(data).toBeUndefined();
  expect(errors[0]!.message).toMatch(/^GraphQL introspection has been disabled/);
});
