import { CLIENT_MESSAGES, ROUTES } from '@atomo-cc/sync-protocol';
import { seeded } from '@atomo-cc/testing';
import type { TestGateway } from './gateway.js';

const FIELDS = [
  'path',
  'newPath',
  'oldPath',
  'content',
  'ops',
  'op',
  'opId',
  'hash',
  'baseHash',
  'size',
  'inline',
  'parts',
  'epoch',
  'from',
  'through',
  'limit',
  'prefix',
  'after',
  'hashes',
  'bytes',
  'length',
  'state',
  '__proto__',
  'constructor',
  'toString',
  'then',
];
const HANDLED: ReadonlySet<string> = new Set(CLIENT_MESSAGES.map(({ event }) => event));
const EVENTS = [...HANDLED, 'exception', 'message', '__proto__'];
const HASH = `sha256:${'0'.repeat(64)}`;

/** Payloads that no client should send, and some that are nearly right. */
class Junk {
  constructor(private readonly next: () => number) {}

  pick<Item>(from: readonly Item[]): Item {
    return from[Math.floor(this.next() * from.length)]!;
  }

  value(depth = 0): unknown {
    const leaf = () =>
      this.pick<() => unknown>([
        () => null,
        () => true,
        () => -1,
        () => 1.5,
        () => Number.MAX_SAFE_INTEGER + 10,
        () => '',
        () => 'a.md',
        () => '../../etc/passwd',
        () => 'CON',
        () => 'a\0b',
        () => '\ud800',
        () => '\u202egnp',
        () => 'x'.repeat(Math.floor(this.next() * 3_000)),
        () => HASH,
        () => this.uuid(),
        () => Buffer.from([0xff, 0xfe]),
      ])();
    if (depth > 4 || this.next() < 0.5) return leaf();
    if (this.next() < 0.4) return Array.from({ length: Math.floor(this.next() * 4) }, () => this.value(depth + 1));
    return this.object(depth + 1);
  }

  object(depth = 0): object {
    const found: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
    for (let left = Math.floor(this.next() * 6); left > 0; left -= 1) found[this.pick(FIELDS)] = this.value(depth);
    if (depth === 0 && this.next() < 0.3) found['ops'] = Array.from({ length: 3 }, () => this.operation());
    return found;
  }

  /** From the seed, as all else. */
  uuid(): string {
    const digits = Array.from({ length: 32 }, () => Math.floor(this.next() * 16).toString(16)).join('');
    return digits.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12})$/, '$1-$2-4$3-8$4-$5');
  }

  /** What may stand in an address. */
  text(): string {
    const value = this.value(5);
    return (typeof value === 'string' ? value : String(value)).toWellFormed().slice(0, 500);
  }

  operation(): unknown {
    if (this.next() < 0.3) return this.value(1);
    const base = { opId: this.uuid(), op: this.pick(['put', 'delete', 'rename', 'delete-folder', 'rename-folder']) };
    return { ...base, path: 'f/a.md', newPath: 'f/b.md', hash: HASH, size: 0, [this.pick(FIELDS)]: this.value(1) };
  }

  frame(): string {
    const text = JSON.stringify([this.pick(EVENTS), this.value()]);
    const cut = Math.floor(this.next() * text.length);
    return this.pick([
      () => `42${text.slice(0, cut)}`,
      () => `42${text.slice(0, cut)}\u0000${text.slice(cut)}`,
      () => `45${Math.floor(this.next() * 1e6)}-${text}`,
      () => `42/${'n'.repeat(cut)},${text}`,
      () => `4${Math.floor(this.next() * 10)}${text}`,
      () => '['.repeat(1 + cut * 50),
      () => String(Math.floor(this.next() * 10)),
    ])();
  }
}

/** Sockets that send at the same time. */
const SOCKETS = 4;
/** Events of one connection. */
const EVENTS_OF_A_SOCKET = 200;

/** What was sent, and the codes of what was answered. */
export interface Fuzzed {
  readonly sent: number;
  readonly codes: ReadonlyMap<string, number>;
}

/**
 * Sends so many malformed events to a gateway: to the handlers of both protocols, over several sockets at once with several
 * keys, with and without an ack, and on a tenth of the connections frames below Socket.IO that make no sense. What is sent
 * follows from the seed alone; in which order the sockets are served does not.
 */
export async function fuzz(
  gateway: TestGateway,
  keys: readonly string[],
  count: number,
  seed: number,
): Promise<Fuzzed> {
  const codes = new Map<string, number>();
  const note = (code: string) => void codes.set(code, (codes.get(code) ?? 0) + 1);
  let left = count;
  let sent = 0;
  const lane = async (place: number) => {
    const next = seeded(seed * SOCKETS + place);
    while (left > 0) {
      const share = Math.min(EVENTS_OF_A_SOCKET, left);
      left -= share;
      const done = await fuzzOnce(gateway, keys, share, next, note);
      sent += done;
      left += share - done;
    }
  };
  await Promise.all(Array.from({ length: SOCKETS }, (_, place) => lane(place)));
  return { sent, codes };
}

/** One connection, from its handshake to its end. Answers how many events it sent. */
async function fuzzOnce(
  gateway: TestGateway,
  keys: readonly string[],
  share: number,
  next: () => number,
  note: (code: string) => void,
): Promise<number> {
  const junk = new Junk(next);
  const apiKey = junk.pick(keys);
  const auth = next() < 0.5 ? { apiKey } : { apiKey, protocol: 2, device: { id: 'fuzz' } };
  const client = await gateway.connectWith(auth).catch(() => null);
  if (!client) {
    note('refused connection');
    return 0;
  }
  let waiting = 0;
  let sent = 0;
  const isRough = next() < 0.1;
  const ended = new Promise<void>((resolve) => client.socket.once('disconnect', () => resolve()));
  const answered: Promise<void>[] = [];
  for (; sent < share && client.socket.connected; sent += 1) {
    const event = junk.pick(EVENTS);
    const payload = next() < 0.8 ? [junk.object()] : [junk.value(), junk.value()];
    if (isRough && next() < 0.05) {
      const raw = client.socket.io.engine as unknown as { transport: { ws: { send(frame: string): void } } };
      raw.transport.ws.send(junk.frame());
    } else if (next() < 0.2 || !HANDLED.has(event)) client.socket.emit(event, ...payload);
    else {
      waiting += 1;
      answered.push(
        new Promise((resolve) => {
          client.socket.emit(event, ...payload, (ack: { error?: { code: string } }) => {
            waiting -= 1;
            note(ack.error?.code ?? 'success');
            resolve();
          });
        }),
      );
    }
  }
  // A frame that makes no sense may cost its connection; on one that stays, everything that is handled is answered.
  await Promise.race([ended, Promise.all(answered)]);
  if (client.socket.connected && waiting > 0) note('no answer');
  client.socket.disconnect();
  return sent;
}

/**
 * Sends so many malformed calls to the routes: junk in bodies, queries and addresses. What a call answers is held to the
 * documents like all else.
 * @returns how often each status was answered
 */
export async function fuzzRoutes(
  gateway: TestGateway,
  keys: readonly string[],
  count: number,
  seed: number,
): Promise<ReadonlyMap<number, number>> {
  const next = seeded(seed);
  const junk = new Junk(next);
  const statuses = new Map<number, number>();
  // What answers bytes is no JSON, and the test's client reads nothing else.
  const routes = ROUTES.filter(({ answers }) => typeof answers[200] !== 'string');
  for (let left = count; left > 0; left -= 1) {
    const route = junk.pick(routes);
    const path = route.path.replace(/\{\w+\}/g, () => encodeURIComponent(junk.text()));
    const query = Object.keys(route.query?.fields ?? {})
      .filter((name) => name !== 'wait' && next() < 0.6)
      .map((name) => `${name}=${encodeURIComponent(junk.text())}`);
    const body = next() < 0.8 ? junk.object() : junk.pick(['{', 'null', '"x"', '['.repeat(2_000), '', '\u0000']);
    const hasBody = route.method !== 'GET' && route.method !== 'DELETE';
    const { status } = await gateway.call(
      route.method,
      `${path}?${query.join('&')}`,
      route.needs === 'master' ? 'sk_admin_dev' : junk.pick(keys),
      hasBody ? body : undefined,
    );
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
  }
  return statuses;
}
