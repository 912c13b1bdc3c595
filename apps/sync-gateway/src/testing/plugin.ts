import { createHash } from 'node:crypto';
import { io, type Socket } from 'socket.io-client';

/** A note or an attachment of the vault: text, or base64 under the name of a binary file. */
interface VaultFile {
  content: string;
  /** When it was last written, in milliseconds. */
  modifiedAt: number;
}

interface Listed {
  readonly path: string;
  readonly hash: string;
  readonly updatedAt: string;
  readonly expiresAt?: string;
}

interface Heard {
  readonly path: string;
  readonly oldPath: string;
  readonly newPath: string;
  readonly content: string;
}

/** Longest page of the list. */
const PAGE = 1_000;
const ANSWER_MS = 30_000;

/**
 * What the plugin of protocol 1 does, written from the facts of that protocol alone: its handshake, its four events, what it
 * does with the four broadcasts, its four phases after a connection, its force push, and its settings. It knows no `seq`, and
 * nothing of this repository.
 */
export class Plugin {
  readonly vault = new Map<string, VaultFile>();
  /** The files of its configuration folder, relative to that. */
  readonly configuration = new Map<string, string>();
  private socket: Socket | undefined;

  constructor(
    private readonly url: string,
    private readonly key: string,
  ) {}

  /** Connects and syncs as it does on `connect`. @throws the connect_error of the handshake */
  async connect(): Promise<void> {
    const socket = io(this.url, {
      query: { apiKey: this.key },
      transports: ['websocket'],
      reconnectionAttempts: 5,
      reconnectionDelay: 5_000,
      reconnectionDelayMax: 30_000,
      forceNew: true,
    });
    this.socket = socket;
    socket.on('file-created', ({ path, content }: Heard) => this.vault.set(path, { content, modifiedAt: Date.now() }));
    socket.on('file-modified', ({ path, content }: Heard) => this.vault.set(path, { content, modifiedAt: Date.now() }));
    socket.on('file-deleted', ({ path }: Heard) => this.vault.delete(path));
    socket.on('file-renamed', ({ oldPath, newPath, content }: Heard) => {
      this.vault.delete(oldPath);
      this.vault.set(newPath, { content, modifiedAt: Date.now() });
    });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('connect_error', (error) => {
        socket.disconnect();
        reject(error);
      });
    });
    await this.initialSync();
  }

  disconnect(): void {
    this.socket?.disconnect();
    this.socket = undefined;
  }

  /** The user writes a file. */
  async write(path: string, content: string): Promise<void> {
    const isNew = !this.vault.has(path);
    this.vault.set(path, { content, modifiedAt: Date.now() });
    if (isNew && content === '') await this.emit('created-file', { path });
    else await this.emit('modified-file', { path, content });
  }

  /** The user deletes a file. */
  async remove(path: string): Promise<void> {
    this.vault.delete(path);
    await this.emit('deleted-file', { path });
  }

  /** The user moves a file. */
  async rename(oldPath: string, newPath: string): Promise<void> {
    this.vault.set(newPath, this.vault.get(oldPath)!);
    this.vault.delete(oldPath);
    await this.emit('renamed-file', { oldPath, newPath });
  }

  /** "Force local to server". */
  async forcePush(): Promise<number> {
    const { deleted } = await this.rest<{ deleted: number }>('DELETE', '/files/all');
    for (const [path, { content }] of this.vault) await this.rest('PUT', '/files', { path, content });
    return deleted;
  }

  /** "Push vault settings". */
  async pushSettings(): Promise<number> {
    const { deleted } = await this.rest<{ deleted: number }>('DELETE', '/settings/all');
    for (const [path, content] of this.configuration) await this.rest('PUT', '/settings', { path, content });
    return deleted;
  }

  /** "Pull vault settings". */
  async pullSettings(): Promise<void> {
    const { settings, total } = await this.rest<{ settings: Listed[]; total: number }>('GET', '/settings');
    if (settings.length !== total) throw new Error(`${settings.length} settings of ${total} came`);
    for (const { path } of settings) {
      const { content } = await this.rest<{ content: string }>('GET', `/settings?path=${encodeURIComponent(path)}`);
      this.configuration.set(path, content);
    }
    const known = new Set(settings.map(({ path }) => path));
    for (const path of this.configuration.keys()) if (!known.has(path)) this.configuration.delete(path);
  }

  private async initialSync(): Promise<void> {
    const listed: Listed[] = [];
    for (let offset = 0; ; offset += PAGE) {
      const query = `limit=${PAGE}&offset=${offset}&include_deleted=true`;
      const { files } = await this.rest<{ files: Listed[] }>('GET', `/files?${query}`);
      listed.push(...files);
      if (files.length < PAGE) break;
    }
    const server = new Map(listed.map((file) => [file.path, file]));
    for (const { path, expiresAt } of listed) if (expiresAt) this.vault.delete(path);
    for (const { path, expiresAt } of listed) if (!expiresAt && !this.vault.has(path)) await this.download(path);
    for (const [path, { content, modifiedAt }] of this.vault) {
      const file = server.get(path);
      if (file?.hash === `sha256:${createHash('sha256').update(content).digest('hex')}`) continue;
      if (file && modifiedAt <= Date.parse(file.updatedAt)) await this.download(path);
      else await this.emit('modified-file', { path, content });
    }
  }

  private async download(path: string): Promise<void> {
    const { content } = await this.rest<{ content: string }>('GET', `/files?path=${encodeURIComponent(path)}`);
    this.vault.set(path, { content, modifiedAt: Date.now() });
  }

  /** Like the plugin, it drops what happens while it is offline. */
  private async emit(event: string, payload: object): Promise<void> {
    if (!this.socket?.connected) return;
    const ack = (await this.socket.timeout(ANSWER_MS).emitWithAck(event, payload)) as {
      success: boolean;
      error?: { code: string; message: string };
    };
    if (!ack.success) throw new Error(`${event}: ${ack.error?.code} ${ack.error?.message}`);
  }

  private async rest<Body>(method: string, path: string, body?: object): Promise<Body> {
    const response = await fetch(`${this.url}/api/v1${path}`, {
      method,
      headers: { 'X-API-Key': this.key, ...(body && { 'Content-Type': 'application/json' }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as Body;
  }
}
