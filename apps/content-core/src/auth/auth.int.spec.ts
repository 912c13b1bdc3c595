import { Body as FromBody, Controller, Get, Post, Req } from '@nestjs/common';
import { Type } from 'class-transformer';
import { IsInt, ValidateNested } from 'class-validator';
import type { FastifyRequest } from 'fastify';
import { accessEntities, accessMigrations, openAccess } from '@atomo-cc/access';
import { eventStoreMigrations } from '@atomo-cc/event-store';
import { type RunningService, startService } from '@atomo-cc/platform/lifecycle';
import { AppDatabase, openAppDatabase, openSystemDatabase, SystemDatabase } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { AuthModule } from './auth.module.js';
import { principalOf, Public } from './bearer.guard.js';

const ADMIN = { email: 'ada@example.com', password: 'a long passphrase' };

class Nested {
  @IsInt()
  size!: number;
}

class Order {
  @ValidateNested()
  @Type(() => Nested)
  box!: Nested;
}

/** Stands for the routes of other features. */
@Controller('probe')
class Probe {
  @Get('guarded')
  guarded(@Req() request: FastifyRequest) {
    return principalOf(request);
  }

  @Public()
  @Get('open')
  open() {
    return { open: true };
  }

  @Public()
  @Get('broken')
  broken() {
    throw new Error('select secret from safe');
  }

  @Post('order')
  order(@FromBody() order: Order) {
    return order;
  }
}

let database: TestDatabase;
let service: RunningService;
let app: AppDatabase;
let system: SystemDatabase;

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  const options = { url: database.url, service: 'test', entities: accessEntities };
  app = await openAppDatabase(options);
  system = await openSystemDatabase(options);
  const providers = [
    { provide: AppDatabase, useValue: app },
    { provide: SystemDatabase, useValue: system },
  ];
  const module = {
    module: class Root {},
    imports: [AuthModule.with({ access: openAccess(system, { secret: 'a secret of this test' }), admin: ADMIN })],
    controllers: [Probe],
  };
  service = await startService({
    name: 'test',
    module,
    config: { HOST: '127.0.0.1', LOG_LEVEL: 'silent', ATOMO_SUPERVISOR: '' },
    port: 0,
    provide: providers,
  });
});

afterAll(async () => {
  await service?.stop();
  await Promise.all([app?.close(), system?.close()]);
  await database?.drop();
});

interface Answer {
  status: number;
  headers: Headers;
  body: Body;
}

/** All that one of the routes may answer. */
interface Body {
  accessToken: string;
  refreshToken: string;
  user: { id: string };
  error: { message: string };
}

async function call(method: string, path: string, options: { token?: string; body?: unknown } = {}): Promise<Answer> {
  const response = await fetch(`${service.url}${path}`, {
    method,
    headers: {
      ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
      ...(options.body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(options.body === undefined
      ? {}
      : { body: typeof options.body === 'string' ? options.body : JSON.stringify(options.body) }),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === '' ? {} : JSON.parse(text) };
}

const login = () => call('POST', '/auth/login', { body: ADMIN });

test('a login answers tokens and who one is, for no cache to keep', async () => {
  const { status, body, headers } = await login();
  expect(status).toBe(200);
  expect(body).toEqual({
    accessToken: expect.any(String),
    refreshToken: expect.any(String),
    expiresIn: 900,
    user: { id: expect.any(String), email: ADMIN.email, name: 'Administrator', role: 'Admin' },
  });
  expect(headers.get('cache-control')).toBe('no-store');
  const me = await call('GET', '/auth/me', { token: body.accessToken });
  expect(me).toMatchObject({ status: 200, body: body.user });
});

test('a wrong password and an unknown user get the same answer', async () => {
  const wrong = await call('POST', '/auth/login', { body: { ...ADMIN, password: 'wrong' } });
  const unknown = await call('POST', '/auth/login', { body: { ...ADMIN, email: 'eve@example.com' } });
  expect(wrong).toMatchObject({ status: 401, body: { error: { code: 'UNAUTHENTICATED' } } });
  expect(unknown.body).toEqual(wrong.body);
  expect(wrong.headers.get('www-authenticate')).toBe('Bearer');
});

test.each([
  ['/auth/login', { password: 'x' }, 'email'],
  ['/auth/login', { email: 'ada', password: 'x' }, 'email'],
  ['/auth/login', { email: 'ada@example.com\u0000', password: 'x' }, 'email'],
  ['/auth/login', { email: { $ne: '' }, password: 'x' }, 'email'],
  ['/auth/login', { email: 'ada@example.com' }, 'password'],
  ['/auth/login', { email: 'ada@example.com', password: 'x'.repeat(2_000) }, 'password'],
  ['/auth/refresh', {}, 'refreshToken'],
])('%s with a wrong body (case %#) names the faulty field', async (path, body, field) => {
  const answer = await call('POST', path, { body });
  expect(answer).toMatchObject({ status: 400, body: { error: { code: 'VALIDATION_ERROR', details: { field } } } });
  expect(answer.body.error.message).toContain(field);
});

test.each(['', '{', 'null', '[]', '"text"', '{"__proto__": {"email": "ada@example.com"}}'])(
  'a body of %j is refused in the usual form',
  async (body) => {
    const answer = await call('POST', '/auth/login', { body });
    expect(answer).toMatchObject({ status: 400, body: { error: { code: 'VALIDATION_ERROR' } } });
  },
);

test('a fault deep in a body is named by its path', async () => {
  const { body } = await login();
  const answer = await call('POST', '/probe/order', { token: body.accessToken, body: { box: { size: 'big' } } });
  expect(answer).toMatchObject({ status: 400, body: { error: { details: { field: 'box.size' } } } });
});

test('every route needs a token unless it says otherwise', async () => {
  for (const path of ['/probe/guarded', '/auth/me']) {
    expect(await call('GET', path)).toMatchObject({ status: 401, body: { error: { code: 'UNAUTHENTICATED' } } });
  }
  expect(await call('POST', '/auth/logout')).toMatchObject({ status: 401 });
  expect(await call('GET', '/probe/open')).toMatchObject({ status: 200, body: { open: true } });
  expect(await call('GET', '/health/live')).toMatchObject({ status: 200 });
  const { body } = await login();
  const guarded = await call('GET', '/probe/guarded', { token: body.accessToken });
  expect(guarded).toMatchObject({ status: 200, body: { userId: body.user.id, role: 'Admin' } });
});

test('the tokens of a session are exchanged, and after logout none of them works', async () => {
  const first = (await login()).body;
  const next = await call('POST', '/auth/refresh', { body: { refreshToken: first.refreshToken } });
  expect(next).toMatchObject({ status: 200, body: { expiresIn: 900, user: first.user } });
  expect(await call('POST', '/auth/logout', { token: next.body.accessToken })).toMatchObject({ status: 204 });
  for (const { accessToken } of [first, next.body]) {
    expect(await call('GET', '/auth/me', { token: accessToken })).toMatchObject({ status: 401 });
  }
  const late = await call('POST', '/auth/refresh', { body: { refreshToken: next.body.refreshToken } });
  expect(late).toMatchObject({ status: 401, body: { error: { code: 'UNAUTHENTICATED' } } });
});

test('after a logout everywhere no session is left', async () => {
  const [one, two] = [(await login()).body, (await login()).body];
  expect(await call('POST', '/auth/logout-everywhere', { token: one.accessToken })).toMatchObject({ status: 204 });
  for (const { accessToken } of [one, two]) {
    expect(await call('GET', '/auth/me', { token: accessToken })).toMatchObject({ status: 401 });
  }
});

test('a password is changed by who knows it, and the session that did it stays', async () => {
  const [mine, theirs] = [(await login()).body, (await login()).body];
  const change = (currentPassword: string, newPassword: string) =>
    call('POST', '/auth/password', { token: mine.accessToken, body: { currentPassword, newPassword } });
  expect(await change('wrong', 'another passphrase')).toMatchObject({
    status: 400,
    body: { error: { details: { field: 'currentPassword' } } },
  });
  expect(await change(ADMIN.password, 'x'.repeat(2_000))).toMatchObject({ status: 400 });
  expect(await change(ADMIN.password, 'another passphrase')).toMatchObject({ status: 204 });
  expect(await call('GET', '/auth/me', { token: theirs.accessToken })).toMatchObject({ status: 401 });
  expect(await call('GET', '/auth/me', { token: mine.accessToken })).toMatchObject({ status: 200 });
  expect(await change('another passphrase', ADMIN.password)).toMatchObject({ status: 204 });
});

test('what fails inside tells nothing outside, and what is not there has the usual form', async () => {
  const broken = await call('GET', '/probe/broken');
  expect(broken).toMatchObject({ status: 500, body: { error: { code: 'INTERNAL_ERROR' } } });
  expect(JSON.stringify(broken.body)).not.toContain('select');
  expect(await call('GET', '/nowhere')).toMatchObject({ status: 404, body: { error: { code: 'NOT_FOUND' } } });
});
