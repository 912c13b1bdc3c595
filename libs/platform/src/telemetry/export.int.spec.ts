import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { eventually } from '@atomo-cc/testing';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const PARENT = `00-${TRACE}-b7ad6b7169203331-01`;

/** A service in a process of its own, from the built package: the exporter loads modules in a way that Jest has no word for. */
const SCRIPT = `
  import { Module } from '@nestjs/common';
  import { runService } from '@atomo-cc/platform/lifecycle';
  const [endpoint] = process.argv.slice(1);
  class Root {}
  Module({})(Root);
  await runService(() => ({
    name: 'a-service',
    module: Root,
    port: 0,
    config: {
      HOST: '127.0.0.1',
      LOG_LEVEL: 'debug',
      ATOMO_SUPERVISOR: '',
      OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
      OTEL_EXPORTER_OTLP_HEADERS: { 'x-collector-key': 'k1' },
    },
    configure: (app) => void app.getHttpAdapter().getInstance().get('/things/:id', async () => ({ id: 1 })),
    listening: (url) => console.log(JSON.stringify({ url })),
  }));
`;

interface Service {
  readonly url: string;
  /** Ends it by SIGTERM, and answers its exit code. */
  stop(): Promise<number>;
  /** The lines of its log. */
  lines(): Record<string, unknown>[];
}

async function aService(endpoint: string): Promise<Service> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', SCRIPT, '--', endpoint], {
    cwd: 'libs/platform',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const ended = once(child, 'close').then(([code]) => code as number);
  let output = '';
  const url = await new Promise<string>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      output += String(chunk);
      const [, found] = /^\{"url":"(.*)"\}$/m.exec(output) ?? [];
      if (found) resolve(found);
    });
    void ended.then((code) => reject(new Error(`it ended with ${code} before it listened`)));
  });
  return {
    url,
    stop: () => {
      child.kill('SIGTERM');
      return ended;
    },
    lines: () =>
      output
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}

interface OtlpSpan {
  readonly name: string;
  readonly traceId: string;
  readonly parentSpanId?: string;
  readonly attributes: { key: string; value: Record<string, unknown> }[];
}

interface Sent {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: {
    resourceSpans: {
      resource: { attributes: { key: string; value: Record<string, unknown> }[] };
      scopeSpans: { spans: OtlpSpan[] }[];
    }[];
  };
}

let sent: Sent[] = [];
let servers: Server[] = [];
let children: ChildProcess[] = [];

afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
  [sent, servers, children] = [[], [], []];
});

/** A collector; one that `hangs` takes requests and never answers. */
async function aCollector(hangs = false): Promise<string> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as Sent['body'];
      sent.push({ path: request.url!, headers: request.headers, body });
      if (!hangs) response.setHeader('content-type', 'application/json').end('{}');
    });
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const spansSent = () => sent.flatMap(({ body }) => body.resourceSpans.flatMap((each) => each.scopeSpans[0]!.spans));

it('spans reach the collector as OTLP, with the name of the service, at the latest when it stops', async () => {
  const service = await aService(`${await aCollector()}/`);
  const headers = { traceparent: PARENT, 'user-agent': 'lovelace', 'x-api-key': 'lovelace' };
  expect((await fetch(`${service.url}/things/lovelace?key=lovelace`, { headers })).status).toBe(200);
  await fetch(`${service.url}/nowhere/lovelace`);
  await fetch(`${service.url}/health/live`);
  expect(await service.stop()).toBe(0);
  expect(sent[0]).toMatchObject({
    path: '/v1/traces',
    headers: { 'content-type': 'application/json', 'x-collector-key': 'k1' },
  });
  expect(sent[0]!.body.resourceSpans[0]!.resource.attributes).toContainEqual({
    key: 'service.name',
    value: { stringValue: 'a-service' },
  });
  const [thing, nowhere, ...others] = spansSent();
  expect(others).toEqual([]);
  expect(thing).toMatchObject({ name: 'GET /things/:id', traceId: TRACE, parentSpanId: 'b7ad6b7169203331', kind: 2 });
  expect(Object.fromEntries(thing!.attributes.map(({ key, value }) => [key, Object.values(value)[0]]))).toEqual({
    'http.request.method': 'GET',
    'http.route': '/things/:id',
    'http.response.status_code': 200,
  });
  expect(nowhere).toMatchObject({ name: 'GET none' });
  const [line] = service.lines().filter(({ msg }) => msg === 'answered');
  expect(line).toMatchObject({ traceId: TRACE, spanId: expect.not.stringContaining('b7ad6b7169203331') });
  expect(JSON.stringify(sent.map(({ body }) => body))).not.toMatch(/lovelace|127\.0\.0\.1/);
});

it.each([
  ['nobody listens', false],
  ['it takes and never answers', true],
])('a collector that is away neither fails nor slows a request, nor holds up a stop: %s', async (_, hangs) => {
  const service = await aService(hangs ? await aCollector(true) : 'http://127.0.0.1:9');
  let slowest = 0;
  // More than fill one batch, so that an export is under way while others are answered.
  for (let n = 0; n < 1_200; n += 60) {
    const begun = performance.now();
    const answers = await Promise.all(Array.from({ length: 60 }, () => fetch(`${service.url}/things/1`)));
    expect(answers.every(({ status }) => status === 200)).toBe(true);
    await Promise.all(answers.map((answer) => answer.text()));
    slowest = Math.max(slowest, performance.now() - begun);
  }
  if (hangs) await eventually('an export', () => sent.length > 0);
  const answered = performance.now();
  await service.stop();
  // The first export alone would take 10 seconds; the bound of a stop is 3, and its process ends then.
  expect(slowest).toBeLessThan(8_000);
  expect(performance.now() - answered).toBeLessThan(8_000);
});
