import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { ModulesContainer } from '@nestjs/core';
import type { FastifyInstance } from 'fastify';
import { io, type Socket } from 'socket.io-client';
import { startService } from '@atomo-cc/platform/lifecycle';
import {
  type Ack,
  type Ack2,
  type Change,
  type Changes,
  type ContentHash,
  contentHashOf,
  type FileList,
  type FileState,
  type FileWithContent,
  type KeyView,
  type OpResult,
  type Permission,
  type Ready,
  type SnapshotLine,
  type StoreView,
} from '@atomo-cc/sync-protocol';
import { redisTestUrl } from '@atomo-cc/testing';
import { loadGatewayConfig } from '../config.js';
import { gatewayService } from '../service.js';
import { Described } from './described.js';

/** How long a test waits for an answer before it says so. */
const ANSWER_MS = 30_000;

/** What a REST call answered. */
export interface Answer<Body = unknown> {
  readonly status: number;
  readonly body: Body;
  /** Not enumerable, so that answers are compared by what they say. */
  readonly headers: Headers;
}

/** A gateway on a free port, as a client sees it. */
export class TestGateway {
  /** What all that this gateway takes and gives is held to. */
  readonly described = new Described();

  private constructor(
    readonly url: string,
    /** The routes that it has, as `GET /health`. */
    readonly routes: readonly string[],
    /** The socket events that it takes. */
    readonly events: readonly string[],
    private readonly end: () => Promise<void>,
  ) {}

  /** One that runs elsewhere and is stopped there. */
  static at(url: string): TestGateway {
    return new TestGateway(url, [], [], () => Promise.resolve());
  }

  /** Starts a gateway on the database. */
  static async start(
    databaseUrl: string,
    more: { redisUrl?: string; environment?: Record<string, string> } = {},
  ): Promise<TestGateway> {
    const config = loadGatewayConfig({
      ...more.environment,
      ATOMO_MODE: 'embedded',
      LOG_LEVEL: 'silent',
      DATABASE_URL: databaseUrl,
      REDIS_URL: more.redisUrl ?? redisTestUrl(),
    });
    const options = await gatewayService(config);
    const routes: string[] = [];
    const events: string[] = [];
    const service = await startService({
      ...options,
      port: 0,
      configure: (app) => {
        const fastify: FastifyInstance = app.getHttpAdapter().getInstance();
        fastify.addHook('onRoute', ({ method, url }) => {
          for (const each of [method].flat()) routes.push(`${each} ${url}`);
        });
        for (const module of app.get(ModulesContainer).values()) {
          for (const { metatype } of module.providers.values()) events.push(...eventsOf(metatype));
        }
        return options.configure?.(app);
      },
    });
    return new TestGateway(service.url, routes, [...new Set(events)], () => service.stop());
  }

  /** Stops the gateway, which ends its sockets. @throws when something that it sent is not as the documents tell */
  async stop(): Promise<void> {
    await this.end();
    const [fault] = this.described.faults;
    if (fault) throw new Error(fault);
  }

  /** One REST call. */
  async call<Body = unknown>(
    method: string,
    path: string,
    key?: string,
    body?: unknown,
    more: Readonly<Record<string, string>> = {},
  ): Promise<Answer<Body>> {
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: {
        ...more,
        ...(key && { 'x-api-key': key }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await response.text();
    const { status, headers } = response;
    const isLines = headers.get('content-type') === 'application/x-ndjson';
    const answer = (isLines ? linesOf(text) : text && JSON.parse(text)) as Body;
    this.described.call({ method, path, body, status, answer });
    return Object.defineProperty({ status, body: answer }, 'headers', { value: headers }) as Answer<Body>;
  }

  /** A call with the development master key. */
  async admin<Body = unknown>(method: string, path: string, body?: unknown): Promise<Body> {
    const answer = await this.call<Body>(method, `/api/v1/admin${path}`, 'sk_admin_dev', body);
    if (answer.status >= 300) throw new Error(`${method} ${path} answered ${answer.status}`);
    return answer.body;
  }

  /** A new store and a function that makes keys for it. */
  async aStore(
    query = '',
    more: Record<string, unknown> = {},
  ): Promise<{
    id: string;
    aKey: (...permissions: Permission[]) => Promise<Required<KeyView>>;
    aKeyOf: (more: Record<string, unknown>) => Promise<Required<KeyView>>;
  }> {
    const { id } = await this.admin<StoreView>('POST', `/stores${query}`, { name: 'Vault', ...more });
    return {
      id,
      aKeyOf: (wanted) =>
        this.admin('POST', `/stores/${id}/keys${query}`, { name: 'laptop', permissions: ['read', 'write'], ...wanted }),
      aKey: (...permissions) =>
        this.admin('POST', `/stores/${id}/keys${query}`, {
          name: 'laptop',
          permissions: permissions.length > 0 ? permissions : ['read', 'write'],
        }),
    };
  }

  /** One file by REST. */
  async file(key: string, path: string): Promise<Answer<FileWithContent>> {
    return this.call('GET', `/api/v1/files?path=${encodeURIComponent(path)}`, key);
  }

  /** A list by REST. */
  async list(key: string, query = ''): Promise<FileList> {
    return (await this.call<FileList>('GET', `/api/v1/files?limit=1000&${query}`, key)).body;
  }

  /** The live files that the key sees, as one snapshot tells of them. @throws when it is not whole */
  async snapshot(key: string, query = ''): Promise<{ epoch: string; head: number; files: FileState[] }> {
    const { body } = await this.call<SnapshotLine[]>('GET', `/api/v2/snapshot?${query}`, key);
    const [head, end] = [body[0], body.at(-1)];
    if (!head || !('head' in head) || !end || !('end' in end)) throw new Error('the snapshot is not whole');
    return { ...head, files: body.flatMap((line) => ('fileId' in line ? line : [])) };
  }

  /** A connected client. @throws the connect_error of the handshake */
  async connect(key: string, via: 'query' | 'auth' = 'query'): Promise<Client> {
    const client = new Client(
      io(this.url, {
        transports: ['websocket'],
        reconnection: false,
        forceNew: true,
        ...(via === 'query' ? { query: { apiKey: key } } : { auth: { apiKey: key } }),
      }),
      this.described,
    );
    await client.connected();
    return client;
  }

  /** A client whose handshake has this `auth`. @throws the connect_error of the handshake */
  async connectWith(auth: Record<string, unknown>): Promise<Client> {
    const client = new Client(
      io(this.url, { transports: ['websocket'], reconnection: false, forceNew: true, auth }),
      this.described,
      auth['protocol'] === 2 ? 2 : 1,
    );
    await client.connected();
    return client;
  }
}

function linesOf(text: string): unknown[] {
  const lines = text.split('\n');
  if (lines.pop() !== '') throw new Error('the last line has no end');
  return lines.map((line) => JSON.parse(line) as unknown);
}

/** The events that a class subscribes to, as Nest keeps them. */
function eventsOf(provider: unknown): string[] {
  const prototype = (provider as { prototype?: object } | null)?.prototype ?? {};
  return Object.getOwnPropertyNames(prototype).flatMap((method) => {
    const handler = Object.getOwnPropertyDescriptor(prototype, method)?.value as object | undefined;
    if (typeof handler !== 'function') return [];
    return (Reflect.getMetadata('message', handler) as string | undefined) ?? [];
  });
}

/** A connected client that remembers what it heard. */
export class Client {
  readonly heard: { event: string; payload: Record<string, unknown> }[] = [];

  constructor(
    readonly socket: Socket,
    private readonly described: Described,
    readonly protocol: 1 | 2 = 1,
  ) {
    socket.onAny((event: string, payload: Record<string, unknown>) => {
      this.heard.push({ event, payload });
      described.event(protocol, event, payload);
    });
  }

  /** Settles when the handshake is over. @throws its connect_error */
  async connected(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.socket.once('connect', resolve);
      this.socket.once('connect_error', reject);
    });
  }

  /** Sends an event and answers its ack. */
  async send(event: string, ...payload: unknown[]): Promise<Ack> {
    const ack = (await this.socket.timeout(ANSWER_MS).emitWithAck(event, ...payload)) as Ack;
    this.described.ack(this.protocol, event, payload[0], ack);
    return ack;
  }

  /** The next `count` events that were not taken yet, as `[event, payload]`. */
  async take(count: number): Promise<[string, Record<string, unknown>][]> {
    const signal = AbortSignal.timeout(ANSWER_MS);
    while (this.heard.length < count) {
      await Promise.race([
        new Promise<void>((resolve) => this.socket.prependAny(() => resolve())),
        once(signal, 'abort').then(() => {
          throw new Error(`heard ${this.heard.length} of ${count} events`);
        }),
      ]);
    }
    return this.heard.splice(0, count).map(({ event, payload }) => [event, payload]);
  }

  /** Settles when the gateway ends the connection. */
  async disconnected(): Promise<string> {
    if (this.socket.disconnected) return 'disconnected';
    return new Promise((resolve) => this.socket.once('disconnect', (reason) => resolve(reason)));
  }
}

/** A device of protocol 2: connected, welcomed, and remembering what it heard. */
export class Device2 extends Client {
  /** What the gateway said first. */
  ready!: Ready;

  /** Connects and waits for `ready`. @throws the connect_error of the handshake */
  static async connect(
    gateway: TestGateway,
    key: string,
    more: { cursor?: { epoch: string; seq: number }; device?: string } = {},
  ): Promise<Device2> {
    const { cursor, device = 'laptop' } = more;
    const auth = { apiKey: key, protocol: 2, device: { id: device, name: device }, ...(cursor && { cursor }) };
    const client = new Device2(
      io(gateway.url, { transports: ['websocket'], reconnection: false, forceNew: true, auth }),
      gateway.described,
      2,
    );
    await client.connected();
    const [[event, payload]] = (await client.take(1)) as [[string, Record<string, unknown>]];
    if (event !== 'ready') throw new Error(`the first event was ${event}`);
    client.ready = payload as unknown as Ready;
    return client;
  }

  /** Sends an event and answers its ack without `success`. @throws the code of a refusal */
  async ask<Answer>(event: string, payload: unknown = {}): Promise<Answer> {
    const ack = (await this.send(event, payload)) as Ack2<Answer>;
    if (!ack.success) throw Object.assign(new Error(ack.error.code), ack.error);
    return ack;
  }

  /** Pushes operations; each gets an opId unless it has one. */
  async push(...ops: Record<string, unknown>[]): Promise<OpResult[]> {
    const named = ops.map((op) => ({ opId: randomUUID(), ...op }));
    return (await this.ask<{ results: OpResult[] }>('push', { ops: named })).results;
  }

  /** Pushes one operation. */
  async op(op: Record<string, unknown>): Promise<OpResult> {
    return (await this.push(op))[0]!;
  }

  /** The changes heard, in the order in which they came; checks that the pieces fit together. */
  async changes(through: number): Promise<Change[]> {
    const found: Change[] = [];
    let stands = -1;
    while (stands < through) {
      const [[event, payload]] = (await this.take(1)) as [[string, unknown]];
      if (event !== 'changes') continue;
      const piece = payload as Changes;
      if (stands !== -1 && piece.from !== stands) throw new Error(`a gap from ${stands} to ${piece.from}`);
      stands = piece.through;
      found.push(...piece.changes);
    }
    return found;
  }
}

/** A put of a short text. */
export function putOf(path: string, text: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  const bytes = Buffer.from(text);
  return { op: 'put', path, hash: hashOf(bytes), size: bytes.length, inline: bytes.toString('base64'), ...more };
}

/** The hash of protocol 2. */
export function hashOf(bytes: Uint8Array | string): ContentHash {
  return contentHashOf(createHash('sha256').update(bytes).digest());
}
