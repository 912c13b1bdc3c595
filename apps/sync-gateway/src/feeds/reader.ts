import { sleep } from '@atomo-cc/kernel';
import { PAGE_DEFAULT, type Resync, SERVER_EVENTS_2 } from '@atomo-cc/sync-protocol';
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
 * where the feed is. So nothing is buffered for it, and nothing left out.
 */
export class Reader {
  private isLive = false;
  private isCatchingUp = false;
  private hasEnded = false;

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
    if (this.socket.data.protocol !== 2 || !this.isLive || through <= this.through) return false;
    if (this.through >= from && pendingBytes(this.socket) <= BUDGET_BYTES) return true;
    this.isLive = false;
    this.socket.emit(SERVER_EVENTS_2.head, { epoch: this.epoch, seq: through });
    this.catchUp();
    return false;
  }

  /** Sends pages of the log until the reader is where the feed is. */
  catchUp(): void {
    if (this.isCatchingUp || this.hasEnded) return;
    this.isCatchingUp = true;
    void this.run()
      // The client knows from `ready` or `head` that there is more, and comes back.
      .catch(() => this.socket.disconnect(true))
      .finally(() => (this.isCatchingUp = false));
  }

  /** Tells the client that its cursor is void; it goes on from `head` after a snapshot. */
  resync(reason: Resync['reason'], epoch: string, head: number): void {
    if (this.socket.data.protocol !== 2) return;
    this.through = head;
    this.epoch = epoch;
    this.socket.emit(SERVER_EVENTS_2.resync, { reason, epoch, head } satisfies Resync);
  }

  /** The socket is gone. */
  stop(): void {
    this.hasEnded = true;
  }

  private async run(): Promise<void> {
    while (!this.hasEnded) {
      // Looked at and set in one turn: a piece that the feed hands out next finds the reader live, and standing right.
      if (this.epoch === this.source.epoch() && this.through === this.source.position()) {
        this.isLive = true;
        return;
      }
      if (!(await this.hasRoom())) return;
      const piece = await this.source.page(this.through, PAGE_DEFAULT);
      if (this.hasEnded) return;
      const reason = staleness({ epoch: this.epoch, from: this.through }, piece);
      if (reason) {
        this.resync(reason, piece.epoch, piece.head);
        continue;
      }
      const from = this.through;
      const { through } = piece;
      if (through === from) {
        // The log had nothing more when it was read. If the feed went on meanwhile, it has now.
        if (from < this.source.position()) continue;
        this.isLive = true;
        return;
      }
      this.through = through;
      this.socket.emit(
        SERVER_EVENTS_2.changes,
        pieceFor(this.socket.data.key, { epoch: this.epoch, from, through, more: through < piece.head }, piece.changes),
      );
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
