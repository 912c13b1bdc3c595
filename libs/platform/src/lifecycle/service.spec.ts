import { connect, type Socket } from 'node:net';
import { type ArgumentsHost, Body, Catch, Controller, Get, HttpException, Module, Post } from '@nestjs/common';
import { APP_FILTER } from '@nestjs/core';
import { apiError, API_ERRORS, CodedError } from '@atomo-cc/kernel';
import { Health } from '../health/index.js';
import { restError, startService, type RunningService, type ServiceOptions } from './service.js';

@Controller()
class Routes {
  @Get('coded') coded() {
    throw apiError('CONFLICT', 'It has changed meanwhile.', { currentVersion: 3 });
  }
  @Get('broken') broken() {
    throw new Error('select s3cret from passwords');
  }
  @Get('refused') refused() {
    throw new HttpException('not like this', 422);
  }
  @Post('echo') echo(@Body() body: unknown) {
    return { body };
  }
  @Post('recursive') recursive(@Body() body: unknown): unknown {
    return this.recursive([body]);
  }
}

@Module({ controllers: [Routes] })
class Plain {}

@Catch()
class OwnFilter {
  catch(_error: unknown, host: ArgumentsHost): void {
    host
      .switchToHttp()
      .getResponse<{ status(code: number): { send(body: object): void } }>()
      .status(418)
      .send({ own: true });
  }
}

@Module({ controllers: [Routes], providers: [{ provide: APP_FILTER, useClass: OwnFilter }] })
class WithOwnFilter {}

const running: RunningService[] = [];
const sockets: Socket[] = [];

async function start(more: Partial<ServiceOptions> = {}): Promise<RunningService> {
  const config = { HOST: '127.0.0.1', LOG_LEVEL: 'silent', ATOMO_SUPERVISOR: '' };
  const service = await startService({ name: 'a-service', module: Plain, config, port: 0, ...more });
  running.push(service);
  return service;
}

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(running.splice(0).map((service) => service.stop()));
});

const get = async (url: string, init?: RequestInit) => {
  const response = await fetch(url, init);
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    text,
    body: text.startsWith('{') ? (JSON.parse(text) as unknown) : text,
  };
};

describe('the endpoints for operators', () => {
  it('live, ready and metrics answer', async () => {
    const { url } = await start();
    expect(await get(`${url}/health/live`)).toMatchObject({ status: 200, body: { status: 'live' } });
    expect(await get(`${url}/health/ready`)).toMatchObject({ status: 200, body: { status: 'ready' } });
    await get(`${url}/nowhere/12345`);
    const metrics = await get(`${url}/metrics`);
    expect(metrics.headers.get('content-type')).toMatch(/^text\/plain/);
    expect(metrics.text).toMatch(/process_resident_memory_bytes\{service="a-service"\}/);
    expect(metrics.text).toMatch(/http_request_duration_seconds_count\{[^}]*route="\/health\/live"[^}]*\} 1/);
    expect(metrics.text).not.toContain('12345');
  });

  it('every answer tells browsers to frame, run and guess nothing', async () => {
    const { url } = await start();
    for (const path of ['/health/live', '/nowhere']) {
      const { headers } = await get(url + path);
      expect(Object.fromEntries(headers)).toMatchObject({
        'content-security-policy': "default-src 'none';frame-ancestors 'none'",
        'x-content-type-options': 'nosniff',
        'x-frame-options': 'DENY',
        'referrer-policy': 'no-referrer',
        'cross-origin-resource-policy': 'same-origin',
        'cross-origin-opener-policy': 'same-origin',
        'origin-agent-cluster': '?1',
        'strict-transport-security': 'max-age=31536000; includeSubDomains',
        'x-dns-prefetch-control': 'off',
        'x-download-options': 'noopen',
        'x-permitted-cross-domain-policies': 'none',
        'x-xss-protection': '0',
      });
      expect(headers.get('x-powered-by')).toBeNull();
    }
  });

  it('how long a stream of events was open is not among the durations of requests', async () => {
    const { url } = await start({
      configure: (app) => {
        const fastify = app.getHttpAdapter().getInstance();
        fastify.get('/stream', (_request, reply) => reply.type('text/event-stream; charset=utf-8').send(': over\n\n'));
      },
    });
    expect(await get(`${url}/stream`)).toMatchObject({ status: 200 });
    expect((await get(`${url}/metrics`)).text).not.toContain('/stream');
  });

  it('ready answers 503 and names what is down; live does not care', async () => {
    const { url, app } = await start();
    app.get(Health).add('postgres', () => Promise.reject(new Error('no')));
    expect(await get(`${url}/health/ready`)).toMatchObject({
      status: 503,
      body: { dependencies: { postgres: { state: 'down' } } },
    });
    expect(await get(`${url}/health/live`)).toMatchObject({ status: 200 });
  });
});

describe('errors of a route', () => {
  it.each([
    ['/nowhere', {}, 404, 'NOT_FOUND'],
    ['/coded', {}, 409, 'CONFLICT'],
    ['/refused', {}, 400, 'VALIDATION_ERROR'],
    ['/broken', {}, 500, 'INTERNAL_ERROR'],
    [
      '/echo',
      { method: 'POST', body: `"${'x'.repeat(1024 * 1024)}"`, headers: { 'content-type': 'application/json' } },
      400,
      'VALIDATION_ERROR',
    ],
    [
      '/echo',
      { method: 'POST', body: '{"a":', headers: { 'content-type': 'application/json' } },
      400,
      'VALIDATION_ERROR',
    ],
    ['/echo', { method: 'POST', body: 'x', headers: { 'content-type': 'a/b' } }, 400, 'VALIDATION_ERROR'],
    ['/%E0%A4%A', {}, 400, 'VALIDATION_ERROR'],
  ])('%s answers a coded body without stack: %#', async (path, init, status, code) => {
    const { url } = await start();
    const answer = await get(url + path, init);
    expect(answer.body).toEqual({ error: expect.objectContaining({ code, message: expect.any(String) }) });
    expect(answer.status).toBe(status);
    expect(answer.text).not.toMatch(/s3cret|stack|node_modules|\.ts:/);
    if (path !== '/%E0%A4%A') expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('tell a body that is nested too deeply from a fault of ours that has used up the stack', async () => {
    const { url } = await start();
    const ask = (body: string) =>
      get(`${url}/recursive`, { method: 'POST', body, headers: { 'content-type': 'application/json' } });
    const deep = await ask(`${'['.repeat(400_000)}${']'.repeat(400_000)}`);
    expect(deep).toMatchObject({ status: 400, body: { error: { code: 'VALIDATION_ERROR' } } });
    expect(await ask('[[1]]')).toMatchObject({ status: 500, body: { error: { code: 'INTERNAL_ERROR' } } });
  });

  it.each(['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data; boundary=x', 'application/xml'])(
    'refuse a body of %s, which a page of anybody could send without asking',
    async (type) => {
      const { url } = await start();
      const answer = await get(`${url}/echo`, { method: 'POST', body: 'a=1', headers: { 'content-type': type } });
      expect(answer).toMatchObject({ status: 400, body: { error: { message: expect.stringContaining('JSON') } } });
    },
  );

  it("carry the error's details", async () => {
    const { url } = await start();
    expect((await get(`${url}/coded`)).body).toEqual({
      error: { code: 'CONFLICT', message: 'It has changed meanwhile.', details: { currentVersion: 3 } },
    });
  });

  it('are answered by the filter of the service where it has one', async () => {
    const { url } = await start({ module: WithOwnFilter });
    expect(await get(`${url}/broken`)).toMatchObject({ status: 418, body: { own: true } });
    expect(await get(`${url}/nowhere`)).toMatchObject({ status: 418 });
  });
});

describe('a body beyond the limit', () => {
  /** Sends the head of a request of `length` bytes and one byte of its body; answers what has come back so far. */
  async function aSender(length: number) {
    const { url } = await start();
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    sockets.push(socket);
    const heard = { text: '', isShut: false };
    let hear = Promise.withResolvers<void>();
    const tell = () => {
      hear.resolve();
      hear = Promise.withResolvers();
    };
    socket.setEncoding('utf8').on('data', (text: string) => {
      heard.text += text;
      tell();
    });
    socket
      .on('error', () => undefined)
      .on('close', () => {
        heard.isShut = true;
        tell();
      });
    socket.write(
      `POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n "`,
    );
    const until = async (what: RegExp) => {
      while (!what.test(heard.text) && !heard.isShut) await hear.promise;
      return heard;
    };
    return { socket, until };
  }

  it('is refused before it is sent, and who sends it nevertheless reads why', async () => {
    const { socket, until } = await aSender(8_000_000);
    expect((await until(/\}$/)).text).toMatch(/^HTTP\/1\.1 400 /);
    socket.write('x'.repeat(8_000_000 - 2));
    socket.write('GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n');
    expect(await until(/"live"/)).toMatchObject({ isShut: false, text: expect.stringContaining('"live"') });
  });

  it('and beyond all measure ends with its connection', async () => {
    const { until } = await aSender(1_000_000_000_000);
    expect(await until(/never/)).toMatchObject({ isShut: true, text: expect.stringMatching(/^HTTP\/1\.1 400 /) });
  });
});

describe('restError', () => {
  it.each(Object.keys(API_ERRORS))('has a status for %s', (code) => {
    const { status, body } = restError(new CodedError(code, 'Because.'));
    expect(status).toBeGreaterThanOrEqual(400);
    expect(body).toEqual({ error: { code, message: 'Because.' } });
  });

  it.each([
    [new CodedError('DATABASE_UNREACHABLE', 'Postgres at 10.0.0.7'), 500],
    [new Error('s3cret'), 500],
    [{ statusCode: 413, message: 'x' }, 400],
    [{ statusCode: 503, message: 's3cret' }, 500],
    ['a string', 500],
    [undefined, 500],
    [null, 500],
  ])('%# hides what is not meant for callers', (error, status) => {
    const answer = restError(error);
    expect(answer.status).toBe(status);
    expect(JSON.stringify(answer)).not.toMatch(/s3cret|10\.0\.0\.7/);
  });
});

describe('stopping', () => {
  /** A client that asked once and keeps its connection open. */
  async function anIdleClient(url: string): Promise<Socket> {
    const { port } = new URL(url);
    const socket = connect(Number(port), '127.0.0.1');
    sockets.push(socket);
    const answered = new Promise((resolve) => socket.once('data', resolve));
    socket.write('GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n');
    await answered;
    return socket;
  }

  it('ends although an idle keep-alive client is connected, and closes what was provided once', async () => {
    const close = jest.fn(() => Promise.resolve());
    const service = await start({ close });
    const client = await anIdleClient(service.url);
    const hungUp = new Promise((resolve) => client.once('close', resolve));
    await Promise.all([service.stop(), service.stop()]);
    await hungUp;
    expect(close).toHaveBeenCalledTimes(1);
    await expect(fetch(`${service.url}/health/live`)).rejects.toThrow('fetch failed');
  });

  it('closes what was provided when the service cannot listen', async () => {
    const { url } = await start();
    const close = jest.fn(() => Promise.resolve());
    await expect(start({ port: Number(new URL(url).port), close })).rejects.toMatchObject({ code: 'EADDRINUSE' });
    expect(close).toHaveBeenCalledTimes(1);
  });
});

it('tells where it listens', async () => {
  const listening = jest.fn();
  const service = await start({ listening });
  expect(service.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
  expect(listening).toHaveBeenCalledWith(service.url, service.app);
});
