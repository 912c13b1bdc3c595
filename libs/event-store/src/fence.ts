import type { Tx } from '@atomo-cc/platform/postgres';

/** The advisory lock that every appender holds, shared, from before it draws a position until its commit: "elog" in ASCII. */
export const FENCE_LOCK = 0x656c6f67;

/**
 * The settled mark: every event at or below it is committed and visible, or will never exist.
 *
 * Positions are drawn before commit, so a later position may become visible first, and a reader that just went on from the
 * greatest position seen would skip the earlier one for ever. The mark is found in two steps, in this order:
 *
 *   1. W := the last position drawn from the sequence.
 *   2. H := the transactions that hold the fence now.
 *
 * Once no transaction of H holds the fence any more, everything at or below W is settled. Proof: let e be an event with a
 * position p ≤ W that is not visible yet. Its transaction took the fence before it drew p, and p was drawn before W was
 * read, so at step 2 it either held the fence, and is in H, or had already ended. Postgres makes a commit visible before it
 * releases the transaction's locks. So a transaction that no longer holds the fence has committed visibly or rolled back. ∎
 *
 * What it needs: a sequence without cache (numbers handed out in advance would break "drawn before W was read"), and the
 * primary server (pg_locks of a replica does not show the primary's holders). Transactions that do not append, of other
 * databases for instance, do not hold it up.
 */
export class Fence {
  private settled = 0n;
  private candidate: { mark: bigint; holders: ReadonlySet<string> } | undefined;

  /**
   * Looks once and answers the mark, which never goes back. It may lie behind an append that is under way elsewhere, and
   * behind appends committed since: ask again to see further. Needs a transaction at READ COMMITTED.
   */
  async advance(tx: Tx): Promise<bigint> {
    // Many callers may look at once, and answers overtake each other: only a candidate that was known before this look
    // began is judged by it. Holders that were read earlier say nothing about a mark that was read later.
    const known = this.candidate;
    // Postgres carries them out one after the other, in this order, though they are sent together.
    const [[drawn], rows] = await Promise.all([
      tx.prepared<{ mark: string }>(
        'select case when is_called then last_value else 0 end as mark from event_log_position',
      ),
      tx.prepared<{ holder: string }>(
        `select virtualtransaction as holder from pg_locks
         where locktype = 'advisory' and granted and objsubid = 1
           and database = (select oid from pg_database where datname = current_database())
           and classid = $1 and objid = $2`,
        [0, FENCE_LOCK],
      ),
    ]);
    const mark = BigInt(drawn!.mark);
    const holders = new Set(rows.map((row) => row.holder));
    if (known?.holders.isDisjointFrom(holders)) {
      this.settle(known.mark);
      if (this.candidate === known) this.candidate = undefined;
    }
    if (holders.size === 0) this.settle(mark);
    else this.candidate ??= { mark, holders };
    return this.settled;
  }

  private settle(mark: bigint): void {
    if (mark > this.settled) this.settled = mark;
  }
}
