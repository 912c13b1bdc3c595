import { sleep } from '@atomo-cc/kernel';
import { ACK_WINDOW, type Applied, PAGE_DEFAULT, type Resync, SERVER_EVENTS_2 } from '@atomo-cc/sync-protocol';
import { type Logged, pieceFor, staleness, type Standing } from '../log/index.js';
import { type ClientSocket, pendingBytes } from '../sockets/index.js';

/** What may wait for one client of protocol 2 before it is sent nothing more; with the page that goes beyond it, less than 4 MiB. */
const BUDGET_BYTES = 1024 * 1024;
/** Below it a client that was too slow is given the next page. */
const REFILL_BYTES = 512 * 1024;
/** How often a slow client is looked at. */
const LOOK_MS = 50;
/** A client that has taken nothing for so long is cut; it may come back with its cursor. */
const STALLED_MS = 30_000;

/** What a reader that is behind reads from. */
export interface ReaderSource {
  /** The position of the feed. */
  position(): number;
  epoch(): string;
  /** The log after `from`. */
  page(from: number, limit: number): Promise<Standing & { through: number; changes: readonly Logged[] }>;
}

/**
 * One socket that hears of a store. In protocol 2 it has a position of its own: as long as it keeps up it is *live* and gets
 * what the feed hands out; when it falls behind (a cursor from before, a slow line) it is given pages of the log until it is
 * where the feed is. So nothing is buffered for it, and nothing left out. One that acks is not sent more than it can take at
 * once: beyond the window it hears of heads alone, until it acks or has pulled the rest.
 */
export class Reader {
  private isLive = false;
  private isCatchingUp = false;
  private hasEnded = false;
  /** What the client has applied; null: it has never said so, and is sent what its line takes. */
  private acked: number | null = null;

  /** The position up to which the client was sent everything. */
  through: number;
  private epoch: string;

  constructor(
    readonly socket: ClientSocket,
    cursor: { readonly epoch: string; readonly from: number },
    private readonly source: ReaderSource,
  ) {
    this.through = cursor.from;
    this.epoch = cursor.epoch;
  }

  /** Whether a piece (from, through] of the feed goes to this reader now. */
  takes(from: number, through: number): boolean {
    if (this.socket.data.protocol !== 2 || through <= this.through) return false;
    const canTake = pendingBytes(this.socket) <= BUDGET_BYTES;
    if (this.isLive && this.through >= from && canTake && !this.isAhead()) return true;
    // One that does not ack is told each time: its next ack may have been lost, and it pulls.
    if (this.isLive || (canTake && this.isAhead())) {
      this.socket.emit(SERVER_EVENTS_2.head, { epoch: this.epoch, seq: through });
    }
    if (this.isLive) {
      this.isLive = false;
      this.catchUp();
    }
    return false;
  }

  /** Sends pages of the log until the reader is where the feed is. */
  catchUp(): void {
    if (this.isCatchingUp || this.hasEnded) return;
    this.isCatchingUp = true;
    // The client knows from `ready` or `head` that there is more, and comes back.
    void this.run().catch(() => this.socket.disconnect(true));
  }

  /** Takes the client's word of what it has applied, which it may have pulled by itself. */
  applied({ epoch, through }: Applied): void {
    if (epoch !== this.epoch) return;
    this.acked = Math.min(through, this.source.position());
    if (this.isLive) return;
    this.through = Math.max(this.through, this.acked);
    this.catchUp();
  }

  /** Tells the client that its cursor is void; it goes on from `head` after a snapshot. */
  resync(reason: Resync['reason'], epoch: string, head: number): void {
    if (this.socket.data.protocol !== 2) return;
    this.through = head;
    this.epoch = epoch;
    if (this.acked !== null) this.acked = head;
    this.socket.emit(SERVER_EVENTS_2.resync, { reason, epoch, head } satisfies Resync);
  }

  /** The socket is gone. */
  stop(): void {
    this.hasEnded = true;
  }

  private isAhead(): boolean {
    return this.acked !== null && this.through - this.acked >= ACK_WINDOW;
  }

  private async run(): Promise<void> {
    try {
      while (!this.hasEnded) {
        // Looked at and set in one turn: a piece that the feed hands out next finds the reader live, and standing right.
        if (this.epoch === this.source.epoch() && this.through === this.source.position()) {
          this.isLive = true;
          return;
        }
        if (this.isAhead() || !(await this.hasRoom())) return;
        const { epoch, through: from } = this;
        const piece = await this.source.page(from, PAGE_DEFAULT);
        if (this.hasEnded) return;
        // The client has pulled meanwhile what is on this page, or its cursor is void.
        if (this.epoch !== epoch || this.through !== from) continue;
        const reason = staleness({ epoch, from }, piece);
        if (reason) {
          this.resync(reason, piece.epoch, piece.head);
          continue;
        }
        const { through } = piece;
        if (through === from) {
          // The log had nothing more when it was read. If the feed went on meanwhile, it has now.
          if (from < this.source.position()) continue;
          this.isLive = true;
          return;
        }
        this.through = through;
        const place = { epoch, from, through, more: through < piece.head };
        this.socket.emit(SERVER_EVENTS_2.changes, pieceFor(this.socket.data.key, place, piece.changes));
      }
    } finally {
      // In the turn of its last look: whoever asks after that begins anew.
      this.isCatchingUp = false;
    }
  }

  private async hasRoom(): Promise<boolean> {
    const from = performance.now();
    const limit = pendingBytes(this.socket) > BUDGET_BYTES ? REFILL_BYTES : BUDGET_BYTES;
    while (pendingBytes(this.socket) > limit) {
      if (this.hasEnded) return false;
      if (performance.now() - from > STALLED_MS) {
        this.socket.disconnect(true);
        return false;
      }
      await sleep(LOOK_MS);
    }
    return !this.hasEnded;
  }
}
