import { createHash } from 'node:crypto';
import { io, type Socket } from 'socket.io-client';

type State = { path: string; content: string; hash: string };
type Ack = { success: true; hash?: string } | { success: false; error: { code: string; message: string } };
type Listed = { path: string; hash: string; expiresAt?: string };

/**
 * A client of protocol 1 as the Obsidian plugin is one: key in the handshake's query, the four events and their broadcasts, the
 * list with tombstones at every connection. Its vault is in memory. It knows nothing of sequence numbers or protocol 2.
 */
export class Protocol1Client {
  readonly files = new Map<string, string>();
  readonly #url: string;
  readonly #key: string;
  #socket: Socket | undefined;

  constructor(url: string, key: string) {
    this.#url = url;
    this.#key = key;
  }

  /** Connects and brings its vault up to date: tombstones, then what is missing here, then what differs, then what is new here. */
  async connect(): Promise<void> {
    const socket = io(this.#url, {
      transports: ['websocket'],
      query: { apiKey: this.#key },
      reconnection: false,
      forceNew: true,
    });
    this.#socket = socket;
    socket.on('file-created', (file: State) => this.files.set(file.path, file.content));
    socket.on('file-modified', (file: State) => this.files.set(file.path, file.content));
    socket.on('file-deleted', ({ path }: State) => this.files.delete(path));
    socket.on('file-renamed', (file: State & { oldPath: string; newPath: string }) => {
      this.files.delete(file.oldPath);
      this.files.set(file.newPath, file.content);
    });
    await new Promise<void>((done, failed) => {
      socket.once('connect', () => done());
      socket.once('connect_error', failed);
    });
    const { files } = await this.#get<{ files: Listed[] }>('limit=1000&include_deleted=true');
    const live = files.filter((file) => file.expiresAt === undefined);
    for (const file of files) if (file.expiresAt !== undefined) this.files.delete(file.path);
    for (const { path, hash } of live) {
      const own = this.files.get(path);
      if (own !== undefined && hashOf(own) === hash) continue;
      this.files.set(path, (await this.#get<State>(`path=${encodeURIComponent(path)}`)).content);
    }
    const known = new Set(live.map(({ path }) => path));
    for (const [path, content] of this.files)
      if (!known.has(path)) await this.#emit('modified-file', { path, content });
  }

  disconnect(): void {
    this.#socket?.disconnect();
  }

  /** The user writes a file. */
  async write(path: string, content: string): Promise<void> {
    this.files.set(path, content);
    await this.#emit('modified-file', { path, content });
  }

  async remove(path: string): Promise<void> {
    this.files.delete(path);
    await this.#emit('deleted-file', { path });
  }

  async rename(oldPath: string, newPath: string): Promise<void> {
    const content = this.files.get(oldPath)!;
    this.files.delete(oldPath);
    this.files.set(newPath, content);
    await this.#emit('renamed-file', { oldPath, newPath });
  }

  async #emit(event: string, payload: object): Promise<void> {
    const ack = (await this.#socket!.timeout(10_000).emitWithAck(event, payload)) as Ack;
    if (!ack.success) throw new Error(`${event}: ${ack.error.code} ${ack.error.message}`);
  }

  async #get<Body>(query: string): Promise<Body> {
    const response = await fetch(`${this.#url}/api/v1/files?${query}`, { headers: { 'x-api-key': this.#key } });
    if (!response.ok) throw new Error(`GET /files?${query} answered ${response.status}`);
    return (await response.json()) as Body;
  }
}

function hashOf(content: string): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}
