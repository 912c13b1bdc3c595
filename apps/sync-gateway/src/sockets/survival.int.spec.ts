import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { ConflictPolicy } from '@atomo-cc/sdk-sync';
import { STATE_FOLDER, Vault } from '@atomo-cc/sdk-sync/node';
import type { Change, Changes, OpResult, Ready } from '@atomo-cc/sync-protocol';
import {
  anOwnPostgres,
  anOwnRedis,
  aSeed,
  eventually,
  type OwnPostgres,
  type OwnRedis,
  seeded,
} from '@atomo-cc/testing';
import { Balancer, GatewayProcess, putOf, TestGateway } from '../testing/index.js';

/** What goes on while something is away, and after it is back. */
const ACKS = 25;
const REDIS_AWAY_MS = 3_000;
/** For one operation, or all to come to rest: what is away may take long to start. */
const REST_LIMIT_MS = 60_000;

let postgres: OwnPostgres;
let redis: OwnRedis;
let gateways: GatewayProcess[];
let balancer: Balancer;
let url: string;

beforeAll(async () => {
  [postgres, redis] = await Promise.all([anOwnPostgres(), anOwnRedis()]);
  const environment = { DATABASE_URL: postgres.url, REDIS_URL: redis.url };
  // One after the other: the first one migrates.
  gateways = [await GatewayProcess.start(environment), await GatewayProcess.start(environment)];
  balancer = new Balancer(gateways.map(({ port }) => port));
  url = await balancer.start();
}, 90_000);

afterAll(async () => {
  await balancer?.stop();
  await Promise.all((gateways ?? []).map((gateway) => gateway.kill()));
  await Promise.all([postgres?.remove(), redis?.remove()]);
});

/** Writes one operation after the other, each under its opId until it is answered, and remembers what was acknowledged. */
class Writer {
  readonly acknowledged: { opId: string; path: string; text: string; seq: number }[] = [];
  isStopped = false;

  constructor(
    readonly name: string,
    readonly key: string,
    readonly onAck: () => void,
  ) {}

  async run(): Promise<void> {
    for (let n = 0; !this.isStopped; n++) {
      const [opId, file, text] = [randomUUID(), `${this.name}/${n}.md`, `${this.name} ${n}`];
      const op = { opId, ...putOf(file, text), baseHash: null };
      const result = await this.answer(op);
      if (!result.success) throw new Error(`${file} was refused: ${result.error.code}`);
      this.acknowledged.push({ opId, path: file, text, seq: result.seq });
      this.onAck();
    }
  }

  /** Tries, by way of the balancer, for as long as what is away may take to start. */
  private answer(op: object): Promise<OpResult> {
    return eventually(
      'an answer',
      async () => {
        const response = await fetch(`${url}/api/v2/ops`, {
          method: 'POST',
          headers: { 'x-api-key': this.key, 'content-type': 'application/json' },
          body: JSON.stringify({ ops: [op] }),
        }).catch(() => null);
        const body = (await response?.json().catch(() => null)) as { results?: OpResult[] } | null | undefined;
        const result = body?.results?.[0];
        return result && (result.success || !result.error.retryable) ? result : null;
      },
      REST_LIMIT_MS,
    );
  }
}

/** A folder that is kept the same as the store, with a user who types tokens into it. */
class Device {
  readonly root = fs.mkdtempSync(path.join(os.tmpdir(), 'survival-'));
  readonly typed: string[] = [];
  #ended: Promise<void> | undefined;
  readonly #stop = new AbortController();
  #vault: Vault | undefined;

  constructor(
    readonly name: string,
    readonly onConflict: ConflictPolicy,
    readonly random: () => number,
  ) {}

  async start(key: string): Promise<void> {
    const wishes = { server: url, key, exclude: [], device: this.name, massDelete: 'allow' } as const;
    this.#vault = await Vault.open({ ...wishes, folder: this.root, onConflict: this.onConflict });
    this.#ended = this.#vault.watch(this.#stop.signal);
    // Told where it is waited for.
    this.#ended.catch(() => undefined);
  }

  /**
   * One more token, on a line of its own in one of a few files; now and then a file is renamed instead. What is written goes into
   * the very file that was read: an editor that took another for it would itself undo what has come between.
   */
  edit(): void {
    const pick = (count: number) => Math.floor(this.random() * count);
    const file = path.join(this.root, 'notes', `${pick(4)}.md`);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    const isThere = fs.existsSync(file);
    const to = path.join(this.root, 'notes', `renamed ${pick(100)}.md`);
    if (isThere && pick(12) === 0 && !fs.existsSync(to)) return fs.renameSync(file, to);
    const opened = openedFor(file);
    const was = fs.readFileSync(opened, 'utf8');
    const lines = was === '' ? [] : was.split('\n');
    const token = `${this.name}-${this.typed.length}.`;
    this.typed.push(token);
    lines.splice(pick(lines.length + 1), 0, token);
    fs.ftruncateSync(opened);
    fs.writeSync(opened, lines.join('\n'), 0);
    fs.closeSync(opened);
  }

  files(): Map<string, string> {
    const names = fs.readdirSync(this.root, { recursive: true, encoding: 'utf8' }).sort();
    const read = (name: string): [string, string][] => {
      try {
        return [[name, fs.readFileSync(path.join(this.root, name), 'utf8')]];
      } catch {
        // A folder, or what the vault has moved meanwhile.
        return [];
      }
    };
    return new Map(names.filter((name) => !name.startsWith(STATE_FOLDER)).flatMap(read));
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#vault?.close();
    await this.#ended;
    fs.rmSync(this.root, { recursive: true, force: true });
  }
}

/** A file for reading and writing; a new one where none is, even if one comes at this moment. */
function openedFor(file: string): number {
  for (;;) {
    for (const flags of ['r+', 'wx+']) {
      try {
        return fs.openSync(file, flags);
      } catch (error) {
        if (!['ENOENT', 'EEXIST'].includes((error as NodeJS.ErrnoException).code!)) throw error;
      }
    }
  }
}

/** The whole log of the key's store. */
async function logOf(key: string): Promise<Change[]> {
  const gateway = TestGateway.at(url);
  const { epoch } = (await gateway.call<Ready>('GET', '/api/v2/session', key)).body;
  const log: Change[] = [];
  for (let from = 0; ;) {
    const { body } = await gateway.call<Changes>('GET', `/api/v2/changes?epoch=${epoch}&from=${from}`, key);
    log.push(...body.changes);
    if (!body.more) return log;
    from = body.through;
  }
}

describe('two gateways behind a balancer', () => {
  const seed = aSeed('survival');

  it('lose nothing that was acknowledged or typed, whichever of them, Redis or Postgres is killed', async () => {
    const random = seeded(seed);
    const { key } = await (await TestGateway.at(url).aStore()).aKey();
    const devices = (['copy', 'copy', 'markers'] as const).map((policy, n) => new Device(`d${n}`, policy, random));
    await Promise.all(devices.map((device) => device.start(key)));

    let acks = 0;
    const heard = new Set<() => void>();
    const writers = ['w0', 'w1'].map(
      (name) =>
        new Writer(name, key, () => {
          acks += 1;
          if (name === 'w0') devices[Math.floor(random() * devices.length)]!.edit();
          for (const each of heard) each();
        }),
    );
    const running = Promise.all(writers.map((writer) => writer.run()));
    const goesOn = async (until: () => boolean = () => true) => {
      const wanted = acks + ACKS;
      const gone = new Promise<void>((resolve) =>
        heard.add(() => {
          if (acks >= wanted && until()) resolve();
        }),
      );
      await Promise.race([gone, running]);
      heard.clear();
    };
    await goesOn();
    for (const gateway of gateways) {
      await gateway.kill();
      await goesOn();
      await gateway.start();
      await goesOn();
    }
    const from = performance.now();
    await redis.kill();
    await goesOn(() => performance.now() - from > REDIS_AWAY_MS);
    await redis.start();
    await goesOn();
    await postgres.end('kill');
    await postgres.start();
    await goesOn();
    for (const writer of writers) writer.isStopped = true;
    await running;
    expect(gateways.map(({ lastWords }) => lastWords)).toEqual(['', '']);

    const acknowledged = writers.flatMap((writer) => writer.acknowledged);
    const typed = devices.flatMap((device) => device.typed);
    await eventually(
      'all folders are the same and hold every file that was acknowledged and every token that was typed',
      () => {
        const [first, ...others] = devices.map((device) => device.files());
        const text = [...first!.values()].join('\n');
        return (
          acknowledged.every((op) => first!.get(op.path) === op.text) &&
          typed.every((token) => text.includes(token)) &&
          others.every((other) => JSON.stringify([...other]) === JSON.stringify([...first!]))
        );
      },
      REST_LIMIT_MS,
    );

    const log = await logOf(key);
    expect(log.map(({ seq }) => seq)).toEqual(log.map((_, place) => place + 1));
    expect(acknowledged.filter(({ seq, opId }) => log[seq - 1]?.opId !== opId)).toEqual([]);
    expect(new Set(log.map(({ opId }) => opId)).size).toBe(log.length);
    await Promise.all(devices.map((device) => device.stop()));
  }, 240_000);
});
