import { randomUUID } from 'node:crypto';
import {
  type Ack,
  type Change,
  type Changes,
  type DigestAnswer,
  type FileView,
  type OpResult,
  type Trash,
  type Versions,
} from '@atomo-cc/sync-protocol';
import { aDatabase, seeded, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from '../migrations.js';
import { type Answer, type Client, Device2, hashOf, putOf, TestGateway } from '../testing/index.js';

const SEED = Number(process.env['DIFFERENTIAL_SEED'] ?? Date.now() % 1_000_000);
/** More by hand: DIFFERENTIAL_STEPS=5000. */
const STEPS = Number(process.env['DIFFERENTIAL_STEPS'] ?? 150);

let database: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  gateway = await TestGateway.start(database.url, { environment: { SYNC_OPS_PER_SECOND: '100000' } });
});

afterAll(async () => {
  await gateway.stop();
  await database.drop();
});

type Step =
  | { readonly do: 'create' | 'delete'; readonly path: string }
  | { readonly do: 'write'; readonly path: string; readonly content: string }
  | { readonly do: 'rename'; readonly path: string; readonly to: string }
  | { readonly do: 'delete all' };

/** One way to change a store; answers whether it was done, or the code of the refusal. */
interface End {
  readonly name: string;
  readonly key: string;
  act(step: Step): Promise<string>;
}

const PATHS = ['a.md', 'A.md', 'n/b.md', 'n/c.md', 'n/Caf\u00e9.md', 'n/Cafe\u0301.md', 'm/pic.png', 'pic.png', 'd'];
function base64Of(step: number): string {
  return Buffer.from(`\xff\xfe${step}`, 'latin1').toString('base64');
}

/** Each write has a content of its own: where nothing would change protocol 1 has a change all the same, and protocol 2 none. */
const CONTENTS: readonly ((step: number) => string)[] = [
  (step) => `note ${step}`,
  base64Of,
  (step) => `été \u{1f600} ${step}`,
  (step) => `no base64! ${step}`,
  (step) => `${step}`.repeat(1_000),
];

function* steps(next: () => number): Generator<Step> {
  const pick = <Item>(from: readonly Item[]) => from[Math.floor(next() * from.length)]!;
  for (let step = 0; step < STEPS; step += 1) {
    const [path, kind] = [pick(PATHS), next()];
    // Text under the name of a binary file stays text in protocol 1 alone, in which only a faulty client sends it.
    if (kind < 0.45) yield { do: 'write', path, content: (path.endsWith('.png') ? base64Of : pick(CONTENTS))(step) };
    else if (kind < 0.6) yield { do: 'create', path };
    else if (kind < 0.75) yield { do: 'delete', path };
    else if (kind < 0.98) yield { do: 'rename', path, to: pick(PATHS) };
    else yield { do: 'delete all' };
  }
}

/** Codes of protocol 2 in the words of protocol 1, in which all ends are compared. */
const IN_PROTOCOL_1: Readonly<Record<string, string>> = { PATH_COLLISION: 'CONFLICT' };

function codeOf(answer: Ack | OpResult): string {
  return answer.success ? 'done' : (IN_PROTOCOL_1[answer.error.code] ?? answer.error.code);
}

const restCode = ({ status, body }: Answer) =>
  status < 300 ? 'done' : (body as { error: { code: string } }).error.code;

async function overSockets(key: string): Promise<End> {
  const client: Client = await gateway.connect(key);
  const rest = await overRest(key);
  return {
    name: 'protocol 1, sockets',
    key,
    act: async (step) => {
      switch (step.do) {
        case 'create':
          return codeOf(await client.send('created-file', { path: step.path }));
        case 'write':
          return codeOf(await client.send('modified-file', { path: step.path, content: step.content }));
        case 'delete':
          return codeOf(await client.send('deleted-file', { path: step.path }));
        case 'rename':
          return codeOf(await client.send('renamed-file', { oldPath: step.path, newPath: step.to }));
        case 'delete all':
          return rest.act(step);
      }
    },
  };
}

async function overRest(key: string): Promise<End> {
  const call = (method: string, query: string, body?: unknown) =>
    gateway.call(method, `/api/v1/files${query}`, key, body);
  return {
    name: 'protocol 1, REST',
    key,
    act: async (step) => {
      switch (step.do) {
        case 'create': {
          const code = restCode(await call('POST', '', { path: step.path, content: '' }));
          if (code !== 'CONFLICT') return code;
          // POST refuses what is there, where the event leaves it alone; a name in the way is in both.
          return (await gateway.file(key, step.path.normalize('NFC'))).status === 200 ? 'done' : code;
        }
        case 'write':
          return restCode(await call('PUT', '', { path: step.path, content: step.content }));
        case 'delete':
          return restCode(await call('DELETE', `?path=${encodeURIComponent(step.path)}`));
        case 'rename':
          return restCode(await call('PATCH', '', { path: step.path, newPath: step.to }));
        case 'delete all':
          return restCode(await call('DELETE', '/all'));
      }
    },
  };
}

/** Protocol 2 by `push`, whichever way the operation travels. */
function overPush(name: string, key: string, push: (op: Record<string, unknown>) => Promise<OpResult>): End {
  const put = (path: string, bytes: Buffer, more = {}) =>
    push({
      opId: randomUUID(),
      op: 'put',
      path,
      hash: hashOf(bytes),
      size: bytes.length,
      inline: bytes.toString('base64'),
      ...more,
    });
  const createEmpty = async (path: string) => {
    const made = await put(path, Buffer.alloc(0), { baseHash: null });
    return made.success || made.error.code !== 'CONFLICT' ? codeOf(made) : 'there';
  };
  return {
    name,
    key,
    act: async (step) => {
      switch (step.do) {
        case 'create': {
          const code = await createEmpty(step.path);
          return code === 'there' ? 'done' : code;
        }
        case 'write':
          return codeOf(await put(step.path, bytesOf(step.path, step.content)));
        case 'delete':
          return codeOf(await push({ opId: randomUUID(), op: 'delete', path: step.path }));
        case 'rename': {
          const moved = await push({ opId: randomUUID(), op: 'rename', path: step.path, newPath: step.to });
          if (moved.success || moved.error.code !== 'NOT_FOUND') return codeOf(moved);
          // Protocol 1 makes an empty file of a missing source.
          const code = await createEmpty(step.to);
          return code === 'there' ? 'CONFLICT' : code;
        }
        case 'delete all': {
          const { files } = await gateway.snapshot(key);
          for (const { path } of files) await push({ opId: randomUUID(), op: 'delete', path });
          return 'done';
        }
      }
    },
  };
}

/** What protocol 1 means by a content: base64 under the name of a binary file, if it is. */
function bytesOf(path: string, content: string): Buffer {
  const bytes = Buffer.from(content, 'base64');
  return path.endsWith('.png') && bytes.toString('base64') === content ? bytes : Buffer.from(content);
}

/** All that can be seen of a store, without what is drawn anew for each (ids and times). */
async function seen(key: string, ids: Map<string, number>): Promise<Record<string, unknown>> {
  const idOf = (id: string) => ids.get(id) ?? ids.set(id, ids.size).get(id)!;
  const get = async <Body>(path: string) => (await gateway.call<Body>('GET', `/api/v2${path}`, key)).body;
  const { epoch } = await get<{ epoch: string }>('/session');
  const log: Change[] = [];
  for (let from = 0, more = true; more;) {
    const page = await get<Changes>(`/changes?epoch=${epoch}&from=${from}&limit=1000`);
    log.push(...page.changes);
    ({ through: from, more } = page);
  }
  const snapshot = await gateway.snapshot(key, 'inline=true');
  const digest = await get<DigestAnswer>('/digest');
  const trash = await get<Trash>('/trash?limit=1000');
  const histories = [];
  for (const { fileId } of snapshot.files) histories.push(await get<Versions>(`/files/${fileId}/versions?limit=1000`));
  const stable = (value: object) =>
    Object.fromEntries(
      Object.entries(value)
        .filter(([name]) => !['keyId', 'device', 'opId', 'epoch', 'inline'].includes(name) && !/(?:At|^at)$/.test(name))
        .map(([name, held]) => [name, name === 'fileId' ? idOf(held as string) : (held as unknown)]),
    );
  return {
    log: log.map(stable),
    files: snapshot.files.map((file) => ({ ...stable(file), inline: file.inline })),
    digest: stable(digest),
    trash: trash.files.map(stable),
    histories: histories.map(({ versions }) => versions.map(stable)),
    list: (await gateway.list(key, 'include_deleted=true')).files.map((file: FileView) => ({
      ...stable(file),
      isDeleted: file.expiresAt !== undefined,
    })),
  };
}

it(`the same ${STEPS} operations end in the same files, log and history, whichever end they come by (seed ${SEED})`, async () => {
  const aKey = async () => (await (await gateway.aStore()).aKey()).key;
  const [first, second, third, fourth] = [await aKey(), await aKey(), await aKey(), await aKey()];
  const device = await Device2.connect(gateway, third);
  const ends = [
    await overSockets(first),
    await overRest(second),
    overPush('protocol 2, sockets', third, (op) => device.op(op)),
    overPush('protocol 2, REST', fourth, async (op) => {
      const { body } = await gateway.call<{ results: OpResult[] }>('POST', '/api/v2/ops', fourth, { ops: [op] });
      return body.results[0]!;
    }),
  ];
  for (const step of steps(seeded(SEED))) {
    const codes = await Promise.all(ends.map((end) => end.act(step)));
    expect({ step, codes }).toEqual({ step, codes: codes.map(() => codes[0]) });
  }
  const views = await Promise.all(ends.map((end) => seen(end.key, new Map())));
  expect((views[0]!['log'] as unknown[]).length).toBeGreaterThan(STEPS / 4);
  for (const [place, view] of views.entries()) {
    expect({ of: ends[place]!.name, ...view }).toEqual({ of: ends[place]!.name, ...views[0] });
  }
}, 600_000);

/** A write or a deletion on condition: of a content that was written before, of no file, or of none at all. */
interface Guarded {
  readonly path: string;
  /** Null: a deletion. */
  readonly content: string | null;
  readonly base: string | null | undefined;
}

function* guarded(next: () => number): Generator<Guarded> {
  const pick = <Item>(from: readonly Item[]) => from[Math.floor(next() * from.length)]!;
  const written: string[] = ['never'];
  for (let step = 0; step < STEPS; step += 1) {
    const content = next() < 0.8 ? `note ${step}` : null;
    yield { path: pick(['a.md', 'b.md', 'A.md']), content, base: pick([...written.slice(-3), null, undefined]) };
    if (content !== null) written.push(content);
  }
}

it(`a condition is decided the same by the headers of REST and by the baseHash of push (seed ${SEED})`, async () => {
  const aKey = async () => (await (await gateway.aStore()).aKey()).key;
  const [byHeaders, byBase] = [await aKey(), await aKey()];
  const device = await Device2.connect(gateway, byBase);
  const overHeaders = async ({ path, content, base }: Guarded) => {
    const conditions: Record<string, string> =
      base === undefined ? {} : base === null ? { 'if-none-match': '*' } : { 'if-match': `"${hashOf(base)}"` };
    const answer =
      content === null
        ? await gateway.call('DELETE', `/api/v1/files?path=${path}`, byHeaders, undefined, conditions)
        : await gateway.call('PUT', '/api/v1/files', byHeaders, { path, content }, conditions);
    const { details } = (answer.body as { error?: { details?: unknown } }).error ?? {};
    return {
      code: answer.status === 412 ? 'CONFLICT' : answer.status === 409 ? 'PATH_COLLISION' : restCode(answer),
      details,
    };
  };
  const overPushed = async ({ path, content, base }: Guarded) => {
    const op = content === null ? { op: 'delete', path } : putOf(path, content);
    const result = await device.op({
      ...op,
      ...(base !== undefined && { baseHash: base === null ? null : hashOf(base) }),
    });
    return result.success ? { code: 'done' } : { code: result.error.code, details: result.error.details };
  };
  const codes = new Map<string, number>();
  const withoutId = ({ code, details }: { code: string; details?: unknown }) =>
    JSON.parse(JSON.stringify({ code, details }, (name, held: unknown) => (name === 'fileId' ? null : held))) as object;
  for (const step of guarded(seeded(SEED))) {
    const [one, other] = await Promise.all([overHeaders(step), overPushed(step)]);
    codes.set(other.code, (codes.get(other.code) ?? 0) + 1);
    expect({ step, ...withoutId(one) }).toEqual({ step, ...withoutId(other) });
  }
  expect([...codes.keys()].toSorted()).toEqual(['CONFLICT', 'PATH_COLLISION', 'done']);
  const [first, second] = [await seen(byHeaders, new Map()), await seen(byBase, new Map())];
  expect(first).toEqual(second);
}, 60_000);
