import type { TenantId } from '@atomo-cc/kernel';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import type { Logger } from '@atomo-cc/platform/logging';
import { type Applied, PAGE_DEFAULT, SERVER_EVENTS_2 } from '@atomo-cc/sync-protocol';
import type { Contents } from '../contents/index.js';
import { type Logged, pieceFor, readChanges, readStanding, seenBy } from '../log/index.js';
import { type Clients, type ClientSocket, pendingBytes } from '../sockets/index.js';
import { broadcastOf } from './broadcast.js';
import { Reader, type ReaderSource } from './reader.js';

/** A change of this node, with the socket of protocol 1 that need not hear of it. */
export type Committed = Logged & { readonly sender?: string | undefined };

/** What a feed stands on. */
export interface FeedGround {
  readonly database: AppDatabase;
  readonly contents: Contents;
  readonly clients: Clients;
  readonly logger: Logger;
  /** Settles when what this node is committing to the store just now is committed, and known to the feed. */
  inFlight(storeId: string): Promise<void>;
}

/** What one client of protocol 1 may leave unread: two contents of the largest size. It cannot catch up, so it is cut. */
const UNREAD_LIMIT_BYTES = 64 * 1024 * 1024;

/**
 * A store's log as this node hands it to its readers: in order, without a gap, each change once. What this node writes comes
 * in memory; whatever is missing before it is read from the log. Hints and polls only say that there is more.
 */
export class Feed {
  /** The position up to which everything was handed out. */
  private seq = 0;
  private epoch = '';
  /** By socket. */
  private readonly readers = new Map<string, Reader>();
  private readonly senders = new Map<number, string>();
  private readonly waiting = new Set<() => void>();
  private tail: Promise<void>;
  private isFilling = false;
  private usedAt = performance.now();
  private readonly source: ReaderSource = {
    position: () => this.seq,
    epoch: () => this.epoch,
    page: (from, limit) =>
      this.ground.database.transaction(this.tenantId, (tx) => readChanges(tx, this.storeId, from, limit)),
  };
  /** Settles when the feed knows where the store stands. @throws CodedError NOT_FOUND */
  readonly started: Promise<void>;

  constructor(
    private readonly ground: FeedGround,
    private readonly tenantId: TenantId,
    private readonly storeId: string,
  ) {
    this.started = this.start();
    this.tail = this.started.catch(() => undefined);
  }

  /** Whose store it is. */
  get tenant(): TenantId {
    return this.tenantId;
  }

  /** Whether nobody has needed the feed for so long. */
  isIdle(forMs: number): boolean {
    if (this.readers.size > 0 || this.waiting.size > 0) this.usedAt = performance.now();
    return performance.now() - this.usedAt > forMs;
  }

  /** Lets a socket of protocol 1 hear what happens from now on. */
  add(socket: ClientSocket): void {
    this.join(new Reader(socket, { epoch: this.epoch, from: this.seq }, this.source));
  }

  /** Lets a socket of protocol 2 hear what comes after its cursor. */
  follow(socket: ClientSocket, cursor: { readonly epoch: string; readonly from: number }): void {
    const reader = new Reader(socket, cursor, this.source);
    this.join(reader);
    reader.catchUp();
  }

  /** Takes a client's word of where it stands. */
  applied(socket: ClientSocket, cursor: Applied): void {
    this.readers.get(socket.id)?.applied(cursor);
  }

  /** Takes changes that this node has committed, in the order of `seq`. */
  committed(changes: readonly Committed[]): void {
    for (const { seq, sender } of changes) if (sender !== undefined) this.senders.set(seq, sender);
    this.enqueue(async () => {
      const first = changes[0]!.seq;
      if (first > this.seq + 1) await this.fill(first - 1);
      const fresh = changes.filter(({ seq }) => seq > this.seq);
      if (fresh.length > 0) await this.deliver(fresh, fresh.at(-1)!.seq);
    });
  }

  /** Takes word that the store has moved to `seq`, or with another epoch somewhere else. */
  hinted(seq: number, epoch?: string): void {
    if (epoch !== undefined && this.epoch !== '' && epoch !== this.epoch) this.restart(epoch, seq);
    else if (seq > this.seq && !this.isFilling) {
      this.isFilling = true;
      this.enqueue(() => this.fill(seq).finally(() => (this.isFilling = false)));
    }
  }

  /** Settles once the store is beyond `seq`, or after `ms`, or when the signal aborts. */
  async beyond(seq: number, ms: number, signal: AbortSignal): Promise<void> {
    if (this.seq > seq) return;
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        this.waiting.delete(end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      signal.addEventListener('abort', end, { once: true });
      this.waiting.add(end);
    });
  }

  private async start(): Promise<void> {
    const standing = await this.ground.database.transaction(this.tenantId, (tx) => readStanding(tx, this.storeId));
    this.seq = standing.head;
    this.epoch = standing.epoch;
  }

  private join(reader: Reader): void {
    this.readers.set(reader.socket.id, reader);
    reader.socket.once('disconnect', () => {
      reader.stop();
      this.readers.delete(reader.socket.id);
      this.usedAt = performance.now();
    });
  }

  /** The log was set back or replaced: every cursor is void. */
  private restart(epoch: string, head: number): void {
    this.epoch = epoch;
    this.seq = head;
    for (const reader of this.readers.values()) reader.resync('EPOCH', epoch, head);
  }

  private enqueue(task: () => Promise<void>): void {
    this.tail = this.tail.then(task).catch((error: unknown) => {
      this.ground.logger.warn(
        { err: error, storeId: this.storeId },
        'changes wait to be handed out: the log does not answer',
      );
    });
  }

  /** Hands out what the log has up to `through`, or more. */
  private async fill(through: number): Promise<void> {
    while (this.seq < through) {
      const from = this.seq;
      const piece = await this.ground.database.transaction(this.tenantId, (tx) =>
        readChanges(tx, this.storeId, from, PAGE_DEFAULT),
      );
      // Among them may be what this node is committing: who asked for it is known only then.
      await this.ground.inFlight(this.storeId);
      if (piece.epoch !== this.epoch) return this.restart(piece.epoch, piece.head);
      await this.deliver(piece.changes, piece.through);
      if (piece.through === from) return;
    }
  }

  private async deliver(changes: readonly Logged[], through: number): Promise<void> {
    const from = this.seq;
    this.seq = through;
    for (const wake of this.waiting) wake();
    this.tellProtocol2(changes, from, through);
    for (const change of changes) await this.tellProtocol1(change);
    for (const { seq } of changes) this.senders.delete(seq);
  }

  /** Readers who stand at the same place and see the same folders get one piece, encoded once. */
  private tellProtocol2(changes: readonly Logged[], from: number, through: number): void {
    const groups = new Map<string, Reader[]>();
    for (const reader of this.readers.values()) {
      if (!reader.takes(from, through)) continue;
      const group = `${reader.through} ${reader.socket.data.key.prefixes.join('\n')}`;
      groups.set(group, [...(groups.get(group) ?? []), reader]);
    }
    for (const readers of groups.values()) {
      const [{ through: stands, socket }] = readers as [Reader];
      const news = changes.filter(({ seq }) => seq > stands);
      const piece = pieceFor(socket.data.key, { epoch: this.epoch, from: stands, through, more: false }, news);
      this.ground.clients.emit(
        readers.map((reader) => reader.socket.id),
        SERVER_EVENTS_2.changes,
        piece,
      );
      for (const reader of readers) reader.through = through;
    }
  }

  private async tellProtocol1(change: Logged): Promise<void> {
    const sender = this.senders.get(change.seq);
    const readers = [...this.readers.values()].filter(
      ({ socket, through }) =>
        socket.data.protocol === 1 && change.seq > through && socket.id !== sender && socket.connected,
    );
    if (readers.length === 0) return;
    let bytes = change.bytes ?? null;
    if (!bytes && change.hash !== null && change.as !== null) {
      bytes = await this.ground.database.transaction(this.tenantId, (tx) =>
        this.ground.contents.whole(tx, this.storeId, change.hash!),
      );
    }
    const groups = new Map<string, ClientSocket[]>();
    for (const { socket } of readers) {
      if (pendingBytes(socket) > UNREAD_LIMIT_BYTES) socket.disconnect(true);
      else {
        const group = socket.data.key.prefixes.join('\n');
        groups.set(group, [...(groups.get(group) ?? []), socket]);
      }
    }
    for (const sockets of groups.values()) {
      const view = seenBy(sockets[0]!.data.key, change);
      const broadcast = view && broadcastOf(view, change, bytes ?? Buffer.alloc(0));
      if (broadcast) {
        this.ground.clients.emit(
          sockets.map(({ id }) => id),
          broadcast.event,
          broadcast.payload,
        );
      }
    }
  }
}
