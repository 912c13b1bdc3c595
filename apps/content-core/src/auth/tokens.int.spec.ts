import type { FastifyInstance } from 'fastify';
import { GraphQLBoolean, GraphQLInt } from 'graphql';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { type Access, accessEntities, accessMigrations, Accounts, openAccess, setLimit } from '@atomo-cc/access';
import { DEFAULT_TENANT_ID } from '@atomo-cc/kernel';
import { EventCodec, eventStoreMigrations, SubjectKeys } from '@atomo-cc/event-store';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { LOGGER, type RunningService, startService } from '@atomo-cc/platform/lifecycle';
import { AppDatabase, openSystemDatabase, SystemDatabase } from '@atomo-cc/platform/postgres';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { RoleSchemas, serveApi, type ApiPart, type RolePart } from '../api/index.js';
import { auditApi } from '../events/index.js';
import type { Json } from '../testing/index.js';
import { AuthModule } from './auth.module.js';
import { sessionsApi } from './sessions-api.js';
import { usersApi } from '../users/index.js';
import { tokensApi } from './tokens-api.js';

const ADMIN = { email: 'ada@example.com', password: 'a long passphrase' };

/** Stands for the fields of other features. */
const PROBE: RolePart = (): ApiPart => ({
  query: { look: { type: GraphQLBoolean, resolve: () => true } },
  mutation: { change: { type: GraphQLBoolean, resolve: () => true } },
  subscription: {
    ticks: {
      type: GraphQLInt,
      resolve: (value) => value,
      subscribe: async function* () {
        yield 1;
        await new Promise(() => undefined);
      },
    },
  },
});

let database: TestDatabase;
let system: SystemDatabase;
let service: RunningService;
let access: Access;
let sockets: { close(): Promise<void> };
let admin: string;

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  system = await openSystemDatabase({ url: database.url, service: 'test', entities: accessEntities });
  access = openAccess(system, { secret: 'a secret of this test' });
  const codec = new EventCodec(new SubjectKeys('a key of this test'), ATOMO_EVENTS);
  const parts = [
    PROBE,
    sessionsApi(access.sessions),
    tokensApi(access.tokens, database.app, ['Viewer']),
    usersApi(new Accounts(database.app, codec, ['Viewer']), () => undefined),
    auditApi(database.app, codec),
  ];
  service = await startService({
    name: 'test',
    module: { module: class Root {}, imports: [AuthModule.with({ access, admin: ADMIN })] },
    config: { HOST: '127.0.0.1', LOG_LEVEL: 'silent', ATOMO_SUPERVISOR: '' },
    port: 0,
    provide: [
      { provide: AppDatabase, useValue: database.app },
      { provide: SystemDatabase, useValue: system },
    ],
    configure: (app) => {
      sockets = serveApi(app.getHttpAdapter().getInstance() as unknown as FastifyInstance, {
        schemas: new RoleSchemas(parts, ['Admin', 'Viewer']),
        admit: (authorization) => access.callers.admit(authorization),
        authenticate: (authorization, believedMs) => access.callers.authenticate(authorization, believedMs),
        logger: app.get(LOGGER),
        onDenied: (principal, operation, from) => access.refusals.denied(principal, operation, from),
      });
    },
  });
  const response = await fetch(`${service.url}/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(ADMIN),
  });
  admin = ((await response.json()) as { accessToken: string }).accessToken;
});

afterAll(async () => {
  await sockets?.close();
  await service?.stop();
  await access?.close();
  await system?.close();
  await database?.drop();
});

async function ask(token: string, query: string, variables = {}): Promise<{ data: Json; errors?: Json[] }> {
  const response = await fetch(`${service.url}/graphql`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
  });
  return (await response.json()) as { data: Json };
}

const rest = (token: string, method: string, path: string) =>
  fetch(`${service.url}${path}`, { method, headers: { authorization: `Bearer ${token}` } });

const CREATE = `mutation ($input: CreateApiTokenInput!) {
  createApiToken(input: $input) { token apiToken { id name prefix role scopes expiresAt lastUsedAt } } }`;

async function aToken(scopes: string[], role = 'Admin'): Promise<{ id: string; token: string }> {
  const { data } = await ask(admin, CREATE, { input: { name: 'a machine', role, scopes } });
  return { id: data.createApiToken.apiToken.id, token: data.createApiToken.token };
}

const codes = ({ errors = [] }: { errors?: Json[] }) => errors.map(({ extensions }) => extensions.code);

test('an Admin makes a token, sees it in the list and revokes it', async () => {
  const { id, token } = await aToken(['read'], 'Viewer');
  const list = () => ask(admin, '{ apiTokens { id name prefix role scopes } }');
  const shown = { id, name: 'a machine', prefix: token.slice(0, 12), role: 'Viewer', scopes: ['read'] };
  expect((await list()).data.apiTokens).toEqual([shown]);
  expect((await ask(token, '{ look }')).data).toEqual({ look: true });
  expect((await ask(admin, 'mutation ($id: ID!) { revokeApiToken(id: $id) }', { id })).data).toEqual({
    revokeApiToken: true,
  });
  expect((await list()).data.apiTokens).toEqual([]);
  expect(codes(await ask(admin, 'mutation ($id: ID!) { revokeApiToken(id: $id) }', { id }))).toEqual(['NOT_FOUND']);
});

test('a token does what its scopes say, by GraphQL and by REST, and the log tells what it was refused', async () => {
  const [reader, writer] = [await aToken(['read']), await aToken(['write'])];
  expect((await ask(reader.token, '{ look }')).data).toEqual({ look: true });
  expect(codes(await ask(reader.token, 'mutation { change }'))).toEqual(['FORBIDDEN']);
  expect((await ask(writer.token, 'mutation { change }')).data).toEqual({ change: true });
  expect(codes(await ask(writer.token, 'query { look }'))).toEqual(['FORBIDDEN']);
  expect((await rest(reader.token, 'POST', '/auth/logout')).status).toBe(403);
  const viewer = await aToken(['read', 'write'], 'Viewer');
  expect(codes(await ask(viewer.token, '{ apiTokens { id } }'))).toEqual(['FORBIDDEN']);
  await access.refusals.flush();
  const denials = await ask(
    admin,
    '{ auditLog(actions: ["access.denied"], first: 10) { nodes { actor stream address changes { field after } } } }',
  );
  const said = denials.data.auditLog.nodes.map(({ actor, changes }: Json) => [
    actor,
    changes.find(({ field }: Json) => field === 'operation').after,
  ]);
  expect(said).toEqual(
    expect.arrayContaining([
      [`token:${reader.id}`, 'mutation'],
      [`token:${writer.id}`, 'query'],
      [`token:${reader.id}`, 'POST /auth/logout'],
      [`token:${viewer.id}`, 'apiTokens'],
    ]),
  );
  expect(denials.data.auditLog.nodes[0].address).toBe('127.0.0.1');
});

test('a token is told what it is, whatever its scopes', async () => {
  for (const scopes of [['read'], ['read', 'write']]) {
    const { id, token } = await aToken(scopes, 'Viewer');
    const me = await rest(token, 'GET', '/auth/me');
    expect(me.status).toBe(200);
    const said = { id, name: 'a machine', prefix: token.slice(0, 12), role: 'Viewer', scopes, expiresAt: null };
    expect(await me.json()).toMatchObject(said);
    expect((await ask(token, '{ me { id role } }')).data.me).toEqual({ id: null, role: 'Viewer' });
  }
});

test('a token cannot make tokens or users, choose passwords or look at sessions, whatever its role', async () => {
  const { token } = await aToken(['read', 'write']);
  for (const change of [
    'createUser(input: {email: "to-stay@example.com", role: "Admin", password: "a long passphrase"})',
    'updateUser(id: "00000000-0000-7000-8000-000000000001", input: {role: "Admin"})',
    'resetPassword(id: "00000000-0000-7000-8000-000000000001", password: "a long passphrase")',
    'deleteUser(id: "00000000-0000-7000-8000-000000000001")',
  ]) {
    expect(codes(await ask(token, `mutation { ${change} { id } }`))).toEqual(['FORBIDDEN']);
  }
  const input = { name: 'to stay', role: 'Admin', scopes: ['read'] };
  expect(codes(await ask(token, CREATE, { input }))).toEqual(['FORBIDDEN']);
  expect(codes(await ask(token, '{ sessions { id } }'))).toEqual(['FORBIDDEN']);
  for (const path of ['logout', 'logout-everywhere']) {
    expect((await rest(token, 'POST', `/auth/${path}`)).status).toBe(403);
  }
});

test('a person sees and ends their sessions by GraphQL', async () => {
  const { logins, sessions } = access;
  const { accessToken } = await logins.login(ADMIN, { address: '192.0.2.1', userAgent: 'Firefox' });
  await sessions.verifyAccessToken(accessToken);
  const { data } = await ask(admin, '{ sessions { id isCurrent address userAgent createdAt refreshedAt expiresAt } }');
  const [other, own] = data.sessions;
  expect([other, own]).toMatchObject([
    { isCurrent: false, address: '192.0.2.1', userAgent: 'Firefox' },
    { isCurrent: true, address: '127.0.0.1' },
  ]);
  const end = () => ask(admin, 'mutation ($id: ID!) { revokeSession(id: $id) }', { id: other.id });
  expect((await end()).data).toEqual({ revokeSession: true });
  expect(codes(await end())).toEqual(['NOT_FOUND']);
  expect(codes(await ask(accessToken, '{ look }'))).toEqual(['UNAUTHENTICATED']);
});

test('a socket of a token is ended within 5 s after it was revoked', async () => {
  const { token, id } = await aToken(['read']);
  let revokedAt = 0;
  let closedAt = 0;
  const client = createClient({
    url: service.url.replace('http', 'ws') + '/graphql',
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
    retryAttempts: 0,
    on: { closed: () => (closedAt = performance.now()) },
  });
  const seen: unknown[] = [];
  client.subscribe(
    { query: 'subscription { ticks }' },
    { next: ({ data }) => seen.push(data), error: () => undefined, complete: () => undefined },
  );
  await eventually('the subscription runs', () => Promise.resolve(seen.length === 1));
  const refused = await new Promise((resolve) => {
    client.subscribe(
      { query: 'mutation { change }' },
      { next: ({ errors }) => resolve(errors), error: resolve, complete: () => undefined },
    );
  });
  expect(JSON.stringify(refused)).toContain('FORBIDDEN');
  await ask(admin, 'mutation ($id: ID!) { revokeApiToken(id: $id) }', { id });
  revokedAt = performance.now();
  await eventually('the socket is closed', () => Promise.resolve(closedAt > 0), 6_000);
  expect(closedAt - revokedAt).toBeLessThan(5_000);
});

test('a tenant that has used up its requests gets RATE_LIMITED with the time to wait, over HTTP, REST and sockets', async () => {
  const { token } = await aToken(['read']);
  await setLimit(system, DEFAULT_TENANT_ID, 'requestsPerMinute=2', { actor: 'operator:ada' });
  const query = (headers = {}) =>
    fetch(`${service.url}/graphql`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ query: '{ look }' }),
    });
  const client = createClient({
    url: `${service.url.replace('http', 'ws')}/graphql`,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
  });
  const overSocket = () =>
    new Promise<unknown>((resolve) => {
      client.subscribe({ query: '{ look }' }, { next: resolve, error: resolve, complete: () => undefined });
    });
  expect(await overSocket()).toEqual({ data: { look: true } });
  const refused = await eventually('the limit holds', async () => {
    const answer = await query();
    return answer.status === 429 ? answer : null;
  });
  const wait = Number(refused.headers.get('retry-after'));
  expect(wait).toBeGreaterThan(0);
  expect(wait).toBeLessThanOrEqual(60);
  const details = { quota: 'requestsPerMinute', limit: 2, retryAfterSeconds: expect.any(Number) };
  expect(await refused.json()).toMatchObject({ errors: [{ extensions: { code: 'RATE_LIMITED', ...details } }] });
  expect((await query({ accept: 'text/event-stream' })).status).toBe(429);
  const byRest = await rest(token, 'GET', '/auth/me');
  expect([byRest.status, byRest.headers.get('retry-after')]).toEqual([429, expect.stringMatching(/^\d+$/)]);
  expect(await byRest.json()).toMatchObject({ error: { code: 'RATE_LIMITED', details } });
  expect(await overSocket()).toMatchObject([{ extensions: { code: 'RATE_LIMITED', ...details } }]);
  await client.dispose();
  await setLimit(system, DEFAULT_TENANT_ID, 'requestsPerMinute=plan', { actor: 'operator:ada' });
  await eventually('the limit is gone', async () => (await query()).status === 200);
});
