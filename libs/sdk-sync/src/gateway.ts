import { io, type Socket } from 'socket.io-client';
import { backoffMs, sleep } from '@atomo-cc/kernel';
import {
  type Ack2,
  type Changes,
  CLIENT_EVENTS_2,
  type DigestAnswer,
  EMPTY_HASH,
  type FileState,
  HANDSHAKE_ERRORS,
  type Head,
  KEY_HEADER,
  type OpResult,
  PROTOCOL_2,
  type Ready,
  type Resync as ResyncEvent,
  REST_BASE_2,
  type Revoked,
  SERVER_EVENTS_2,
  type SnapshotLine,
  type Sync2ErrorBody,
} from '@atomo-cc/sync-protocol';
import { hashOf } from './content.js';
import { clientError } from './errors.js';
import type {
  Change,
  ChangePage,
  Cursor,
  PushFault,
  PushOp,
  PushResult,
  Resync,
  ServerLimits,
  SnapshotFile,
  StoreDigest,
  SyncServer,
} from './ports.js';

/** How long an answer may take. The largest part at 150 KB/s needs half of it. */
const ANSWER_LIMIT_MS = 60_000;
/** How long a new connection may take to its `ready`. */
const CONNECT_LIMIT_MS = 15_000;
/** Between attempts to connect; half of it is random, so that the devices of a store do not come back together. */
const RECONNECT = { firstMs: 500, maxMs: 30_000 } as const;
/** The longest that a call waits for its turn when the gateway says "too much at once". */
const RATE_LIMIT_PATIENCE_MS = 60_000;
const READ_ONLY = 'The API key may only read: what is changed here stays here.';
/** How long the gateway may wait for word of where this client stands: often enough for people, and far less often than there are changes. */
const ACK_DELAY_MS = 5_000;
/** How long the end of a connection may wait for the answer to the last ack. */
const LAST_WORD_MS = 1_000;
/** Downloads and uploads side by side. */
const TRANSFERS = 6;

/** How a device names itself, and which store it talks to. */
export interface GatewayOptions {
  /** The gateway's address, such as `http://127.0.0.1:3100`. */
  readonly url: string;
  /** A key of the store (`sk_store_…`). */
  readonly key: string;
  readonly device: { readonly id: string; readonly name: string };
}

/** What a connection tells by itself. Each may come at any time, or never. */
export interface GatewayListener {
  /** Where the client stands: a new connection goes on there. */
  cursor(): Cursor | null;
  changes(page: ChangePage): void;
  head(head: Cursor): void;
  /** A connection begins: what was sent meanwhile may be lost. */
  connected(): void;
  disconnected(): void;
  /** It will not come back by itself: the key is refused. */
  refused(error: Error): void;
}

/**
 * Asks the gateway who it is and what the key may.
 * @throws CodedError SYNC_OFFLINE, SYNC_KEY_REFUSED, SYNC_NOT_A_GATEWAY
 */
export async function session({ url, key }: Pick<GatewayOptions, 'url' | 'key'>): Promise<Ready> {
  const response = await request(`${base(url)}/session`, key);
  const body: unknown = await response.json().catch(() => null);
  if (response.ok && typeof body === 'object' && body !== null && 'storeId' in body && 'epoch' in body) {
    return body as Ready;
  }
  throw faultOf(url, response, body);
}

/** A store of a gateway over protocol 2: events by socket, large contents by REST. Connects again by itself, for ever. */
export class GatewayServer implements SyncServer {
  readonly #options: GatewayOptions;
  readonly #listener: GatewayListener;
  readonly #socket: Socket;
  readonly #closed = new AbortController();
  #ready: Ready;
  #isReady = false;
  #isReconnecting = false;
  #resync: Resync['resync'] | null = null;
  #attempts = 0;
  #refusal: Error | null = null;
  #whenReady: (() => void)[] = [];
  /** Where this client stands, when the gateway has not heard of it yet. */
  #applied: Cursor | null = null;
  #acked = 0;
  #isAcking = false;
  #ackTimer: ReturnType<typeof setTimeout> | undefined;

  /** @param ready what `session` answered: the limits until the connection tells its own */
  constructor(options: GatewayOptions, ready: Ready, listener: GatewayListener) {
    this.#options = options;
    this.#ready = ready;
    this.#listener = listener;
    this.#socket = io(new URL(options.url).origin, {
      transports: ['websocket'],
      // Its own attempts end for good where the server ends the connection, so ours are used for all cases.
      reconnection: false,
      autoConnect: false,
      forceNew: true,
      timeout: CONNECT_LIMIT_MS,
      auth: (send) => {
        const cursor = listener.cursor();
        send({ apiKey: options.key, protocol: PROTOCOL_2, device: options.device, ...(cursor && { cursor }) });
      },
    });
    this.#listen();
  }

  /** Whether calls can be answered now. */
  get isConnected(): boolean {
    return this.#isReady;
  }

  get canWrite(): boolean {
    return this.#ready.key.permissions.includes('write');
  }

  /** Which folders of the store the key shows: the same text for the same folders. */
  get scope(): string {
    return JSON.stringify(this.#ready.key.prefixes.toSorted());
  }

  /** Why the connection will not come back by itself; null while it may. */
  get refusal(): Error | null {
    return this.#refusal;
  }

  /** Begins to connect. */
  open(): void {
    this.#socket.connect();
  }

  /** Ends the connection for good; calls that wait are refused. */
  close(): void {
    clearTimeout(this.#ackTimer);
    this.#closed.abort();
    const end = () => this.#socket.disconnect();
    // A server drops what comes right before the end, so that is not sent before the answer.
    if (this.#isReady && this.#applied) {
      this.#socket.timeout(LAST_WORD_MS).emit(CLIENT_EVENTS_2.ack, ackOf(this.#applied), end);
    } else end();
    this.#wake();
  }

  limits(): ServerLimits {
    const { inlineBytes, fileBytes, pushOps, pushBytes } = this.#ready.limits;
    return { inlineBytes, maxFileBytes: fileBytes, opsPerPush: pushOps, pushBytes };
  }

  async pull({ epoch, seq }: Cursor): Promise<ChangePage | Resync> {
    const due = this.#resync;
    if (due) {
      this.#resync = null;
      return { resync: due };
    }
    const answer = await this.#ask<Changes>(CLIENT_EVENTS_2.pull, { epoch, from: seq });
    if ('error' in answer) {
      if (answer.error.code !== 'RESYNC_REQUIRED') throw this.#fault(answer.error);
      const { reason } = (answer.error.details ?? {}) as { reason?: Resync['resync'] };
      return { resync: reason ?? 'EPOCH' };
    }
    return pageOf(answer);
  }

  async snapshot(take: (file: SnapshotFile) => void, withContents: boolean): Promise<Cursor> {
    let cursor: Cursor | null = null;
    for (let after: string | null = null; ;) {
      const from: string | null = after;
      const query = new URLSearchParams({ inline: String(withContents), ...(from !== null && { after: from }) });
      const response = await this.#rest(`/snapshot?${query.toString()}`, {});
      if (!response.ok) throw faultOf(this.#options.url, response, await response.json().catch(() => null));
      for await (const line of linesOf<SnapshotLine>(response)) {
        if ('end' in line && cursor) return cursor;
        if ('fileId' in line) {
          take(fileOf(line));
          after = line.path;
        } else if ('head' in line) {
          // The log goes on from the first stream; what changed while the rest was read is in it.
          cursor ??= { epoch: line.epoch, seq: line.head };
          if (line.epoch !== cursor.epoch) throw offline();
        }
      }
      // It was cut. On a slow line that is so each ANSWER_LIMIT_MS, and goes well as long as there is more each time.
      if (after === from) throw offline();
    }
  }

  async digest(): Promise<StoreDigest> {
    const { epoch, seq, digest } = this.#whole(await this.#ask<DigestAnswer>(CLIENT_EVENTS_2.digest, {}));
    return { epoch, seq, digest };
  }

  /** Lets the gateway know: soon, or at once when it would send nothing more before it hears of it. */
  applied(cursor: Cursor): void {
    this.#applied = cursor;
    if (cursor.seq - this.#acked >= this.#ready.limits.ackWindow / 2) void this.#ack();
    else this.#ackTimer ??= setTimeout(() => void this.#ack(), ACK_DELAY_MS);
  }

  /** One at a time, always of the latest. A lost one is made up for by the next, or by the cursor of the next connection. */
  async #ack(): Promise<void> {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    if (this.#isAcking) return;
    this.#isAcking = true;
    while (this.#applied && this.#isReady && !this.#closed.signal.aborted) {
      const applied = this.#applied;
      this.#applied = null;
      this.#acked = applied.seq;
      await this.#ask(CLIENT_EVENTS_2.ack, ackOf(applied)).catch(() => undefined);
    }
    this.#isAcking = false;
  }

  async push(ops: readonly PushOp[]): Promise<readonly PushResult[]> {
    const payload = {
      ops: ops.map(({ content, ...op }) => ({
        ...op,
        ...(content && { inline: Buffer.from(content).toString('base64') }),
      })),
    };
    const answer = await this.#ask<{ results: OpResult[] }>(CLIENT_EVENTS_2.push, payload);
    if ('error' in answer) {
      // Refused as a whole: by the key's rights, or by a limit of which `ready` said otherwise.
      const fault = this.#fault(answer.error);
      if (fault.code !== 'SYNC_KEY_REFUSED' || answer.error.code !== 'FORBIDDEN') throw fault;
      const error: PushFault = { code: answer.error.code, message: READ_ONLY };
      return ops.map(({ opId }) => ({ opId, success: false, error }));
    }
    return answer.results.map((result): PushResult =>
      result.success
        ? { opId: result.opId, success: true, seq: result.seq, ...(result.fileId && { fileId: result.fileId }) }
        : { opId: result.opId, success: false, error: pushFault(result.error) },
    );
  }

  async upload(
    hash: string,
    content: Uint8Array,
  ): Promise<{ readonly parts: readonly string[] } | { readonly fault: PushFault }> {
    const { partBytes } = this.#ready.limits;
    const parts = new Map<string, Uint8Array>();
    const names: string[] = [];
    for (let from = 0; from < content.length; from += partBytes) {
      const part = content.subarray(from, from + partBytes);
      const name = content.length <= partBytes ? hash : hashOf(part);
      names.push(name);
      parts.set(name, part);
    }
    const answer = await this.#ask<{ missing: string[] }>(CLIENT_EVENTS_2.missing, { hashes: [...parts.keys()] });
    if ('error' in answer) {
      const fault = this.#fault(answer.error);
      if (answer.error.code === 'FORBIDDEN') return { fault: { code: answer.error.code, message: READ_ONLY } };
      throw fault;
    }
    const faults: PushFault[] = [];
    await sideBySide(answer.missing, async (name) => {
      if (faults.length > 0) return;
      const response = await this.#rest(`/blobs/${name}`, {
        method: 'PUT',
        headers: { 'content-type': 'application/octet-stream' },
        body: new Uint8Array(parts.get(name)!),
      });
      if (response.ok) return;
      const body = (await response.json().catch(() => null)) as { error?: Sync2ErrorBody } | null;
      if (!body?.error || response.status >= 500 || response.status === 401) {
        if (response.status !== 507) throw faultOf(this.#options.url, response, body);
      }
      faults.push(body?.error ? pushFault(body.error) : { code: 'INTERNAL_ERROR', message: `HTTP ${response.status}` });
    });
    return faults.length > 0 ? { fault: faults[0]! } : { parts: names };
  }

  async fetch(hashes: readonly string[]): Promise<ReadonlyMap<string, Uint8Array>> {
    const found = new Map<string, Uint8Array>();
    await sideBySide(hashes, async (hash) => {
      const content = hash === EMPTY_HASH ? new Uint8Array() : await this.#download(hash);
      if (content) found.set(hash, content);
    });
    return found;
  }

  /** Part by part, so that no single body is large. Null when the store does not have it, or not any more. */
  async #download(hash: string): Promise<Uint8Array | null> {
    const { partBytes } = this.#ready.limits;
    const pieces: Uint8Array[] = [];
    for (let from = 0, size = 1; from < size;) {
      const response = await this.#rest(`/blobs/${hash}`, {
        headers: { range: `bytes=${from}-${from + partBytes - 1}` },
      });
      if (response.status === 404) return null;
      if (!response.ok) throw faultOf(this.#options.url, response, await response.json().catch(() => null));
      const piece = await bodyOf(response);
      const total = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1];
      size = total === undefined ? piece.length : Number(total);
      if (piece.length === 0 && from < size) throw offline();
      pieces.push(piece);
      from += piece.length;
    }
    return Buffer.concat(pieces);
  }

  async #rest(path: string, init: Request): Promise<Response> {
    const until = performance.now() + RATE_LIMIT_PATIENCE_MS;
    for (;;) {
      const response = await request(`${base(this.#options.url)}${path}`, this.#options.key, init);
      if (response.status !== 429 || performance.now() > until) return response;
      const body = (await response.json().catch(() => null)) as { error?: Sync2ErrorBody } | null;
      await sleep(retryAfter(body?.error) ?? RECONNECT.firstMs, this.#closed.signal);
      if (this.#closed.signal.aborted) throw offline();
    }
  }

  /** One event and its answer; waits for the connection before, and for its turn when there is too much at once. */
  async #ask<Answer>(event: string, payload: object): Promise<Answer | { readonly error: Sync2ErrorBody }> {
    const until = performance.now() + RATE_LIMIT_PATIENCE_MS;
    for (;;) {
      await this.#connection();
      let ack: Ack2<Answer>;
      try {
        ack = (await this.#socket.timeout(ANSWER_LIMIT_MS).emitWithAck(event, payload)) as Ack2<Answer>;
      } catch (error) {
        throw offline(error);
      }
      if (ack.success) return ack;
      if (ack.error.code !== 'RATE_LIMITED' || performance.now() > until) return { error: ack.error };
      await sleep(retryAfter(ack.error) ?? RECONNECT.firstMs, this.#closed.signal);
    }
  }

  #whole<Answer>(answer: Answer | { readonly error: Sync2ErrorBody }): Answer {
    if (typeof answer === 'object' && answer !== null && 'error' in answer) throw this.#fault(answer.error);
    return answer;
  }

  #fault({ code, message }: Sync2ErrorBody) {
    const isKey = ['UNAUTHORIZED', 'FORBIDDEN', 'KEY_REVOKED', 'KEY_EXPIRED'].includes(code);
    return isKey ? clientError('SYNC_KEY_REFUSED', message) : clientError('SYNC_OFFLINE', `${code}: ${message}`);
  }

  /** @throws CodedError SYNC_OFFLINE when there is none within CONNECT_LIMIT_MS, SYNC_KEY_REFUSED */
  async #connection(): Promise<void> {
    const limit = AbortSignal.timeout(CONNECT_LIMIT_MS);
    while (!this.#isReady) {
      if (this.#refusal) throw this.#refusal;
      if (this.#closed.signal.aborted || limit.aborted) throw offline();
      await new Promise<void>((resolve) => {
        this.#whenReady.push(resolve);
        limit.addEventListener('abort', () => resolve(), { once: true });
      });
    }
  }

  #wake(): void {
    for (const each of this.#whenReady.splice(0)) each();
  }

  #listen(): void {
    const socket = this.#socket;
    socket.on(SERVER_EVENTS_2.ready, (ready: Ready) => {
      this.#ready = ready;
      this.#isReady = true;
      this.#attempts = 0;
      const cursor = this.#listener.cursor();
      if (cursor) this.applied(cursor);
      this.#listener.connected();
      this.#wake();
    });
    socket.on(SERVER_EVENTS_2.changes, (changes: Changes) => this.#listener.changes(pageOf(changes)));
    socket.on(SERVER_EVENTS_2.head, (head: Head) => this.#listener.head(head));
    socket.on(SERVER_EVENTS_2.resync, ({ reason, epoch }: ResyncEvent) => {
      this.#resync = reason;
      // No cursor is of this epoch and that far: it makes the client pull, which answers with the reason.
      this.#listener.head({ epoch, seq: Number.MAX_SAFE_INTEGER });
    });
    socket.on(SERVER_EVENTS_2.revoked, ({ code }: Revoked) => {
      if (code !== 'SCOPE_CHANGED') this.#refuse(code === 'KEY_EXPIRED' ? 'its time is over' : 'it was revoked');
    });
    socket.on('disconnect', () => {
      this.#isReady = false;
      if (this.#closed.signal.aborted || this.#refusal) return;
      this.#listener.disconnected();
      void this.#reconnect();
    });
    socket.on('connect_error', (error: Error) => {
      const refusals: readonly string[] = ['UNAUTHORIZED', 'INVALID_KEY', 'UNSUPPORTED_PROTOCOL', 'VALIDATION_ERROR'];
      if (refusals.includes(error.message)) {
        this.#refuse(HANDSHAKE_ERRORS[error.message as keyof typeof HANDSHAKE_ERRORS]);
      } else void this.#reconnect();
    });
  }

  #refuse(reason: string): void {
    this.#refusal = refusedKey(reason);
    this.#wake();
    this.#listener.refused(this.#refusal);
  }

  async #reconnect(): Promise<void> {
    if (this.#isReconnecting || this.#refusal || this.#closed.signal.aborted) return;
    this.#isReconnecting = true;
    this.#attempts += 1;
    await sleep(backoffMs(this.#attempts, RECONNECT), this.#closed.signal);
    this.#isReconnecting = false;
    if (!this.#closed.signal.aborted) this.#socket.connect();
  }
}

function ackOf({ epoch, seq }: Cursor) {
  return { epoch, through: seq };
}

interface Request {
  readonly method?: 'PUT';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array<ArrayBuffer>;
}

function base(url: string): string {
  return `${new URL(url).origin}/${REST_BASE_2}`;
}

async function request(url: string, key: string, init: Request = {}): Promise<Response> {
  const headers = { ...init.headers, [KEY_HEADER]: key };
  try {
    return await fetch(url, { ...init, headers, signal: AbortSignal.timeout(ANSWER_LIMIT_MS) });
  } catch (error) {
    throw offline(error, new URL(url).origin);
  }
}

/** The JSON values of a body, a line each. Ends where the body ends or is cut; a line that is cut is left out. */
async function* linesOf<Line>(response: Response): AsyncGenerator<Line, undefined> {
  const decoder = new TextDecoder();
  const reader = response.body!.getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n');
      rest = lines.pop()!;
      for (const line of lines) yield JSON.parse(line) as Line;
    }
  } catch {
    return;
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

async function bodyOf(response: Response): Promise<Uint8Array> {
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw offline(error);
  }
}

function offline(cause?: unknown, who = 'The gateway') {
  const deepest = (cause as { cause?: unknown } | undefined)?.cause ?? cause;
  const reason = deepest instanceof Error && deepest.message ? ` (${deepest.message})` : '';
  return clientError('SYNC_OFFLINE', `${who} does not answer${reason}.`, cause);
}

function faultOf(url: string, { status }: Response, body: unknown) {
  const error = (body as { error?: Partial<Sync2ErrorBody> } | null)?.error;
  const said = typeof error?.message === 'string' ? error.message : `HTTP ${status}`;
  if (error?.code !== undefined && [401, 403].includes(status)) {
    return refusedKey(said);
  }
  if (status === 429 || status >= 500) return clientError('SYNC_OFFLINE', `The gateway cannot answer now: ${said}`);
  return clientError(
    'SYNC_NOT_A_GATEWAY',
    `${new URL(url).origin} is no sync gateway with protocol 2 (HTTP ${status}). Check the URL.`,
  );
}

function refusedKey(reason: string) {
  const said = reason.replace(/[.]$/, '');
  return clientError('SYNC_KEY_REFUSED', `The gateway refuses the API key: ${said}. Check it, or ask for a new one.`);
}

function pushFault(error: Sync2ErrorBody): PushFault {
  const after = retryAfter(error);
  return { code: error.code, message: error.message, ...(after !== undefined && { retryAfterMs: after }) };
}

function retryAfter(error: Sync2ErrorBody | undefined): number | undefined {
  const after = error?.details?.['retryAfterMs'];
  return typeof after === 'number' ? after : undefined;
}

function contentOf(inline: string | undefined): { content?: Uint8Array } {
  return inline === undefined ? {} : { content: Buffer.from(inline, 'base64') };
}

function fileOf({ path, fileId, hash, size, seq, inline }: FileState): SnapshotFile {
  return { path, fileId, hash, size, seq, ...contentOf(inline) };
}

function pageOf({ epoch, from, through, more, changes }: Changes): ChangePage {
  return {
    epoch,
    from,
    through,
    more,
    changes: changes.map(({ op, path, oldPath, fileId, hash, size, seq, inline }): Change => {
      if (op === 'delete' || hash === null) return { op: 'delete', path, seq };
      const file = { path, fileId, hash, size, seq, ...contentOf(inline) };
      return op === 'rename' && oldPath !== undefined ? { op, oldPath, ...file } : { op: 'put', ...file };
    }),
  };
}

/** Works on TRANSFERS items at once; ends with the first error, after those under way have ended. */
async function sideBySide<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const left = items.values();
  const errors: unknown[] = [];
  const lane = async () => {
    for (const item of left) {
      if (errors.length > 0) return;
      await work(item).catch((error: unknown) => errors.push(error));
    }
  };
  await Promise.all(Array.from({ length: TRANSFERS }, lane));
  if (errors.length > 0) throw errors[0];
}
