import { Injectable } from '@nestjs/common';
import { isCodedError } from '@atomo-cc/kernel';
import { AppDatabase, type Tx } from '@atomo-cc/platform/postgres';
import { type Counter, Metrics } from '@atomo-cc/platform/telemetry';
import { syncError } from '@atomo-cc/sync-protocol';
import type { StoreKey } from '../credentials/index.js';
import { Rooms } from '../sockets/index.js';
import { lockStore } from '../stores/index.js';
import { carryOut, type Change, type LockedStore, type Outcome } from './changes.js';

/** Changes that share a transaction: enough to spread the cost of a commit, few enough that the first is not kept waiting. */
const BATCH_CHANGES = 64;
/** Content in one transaction, in UTF-16 code units: a batch of long files must not become a transaction of a gigabyte. */
const BATCH_CONTENT = 16 * 1024 * 1024;
/** Changes that wait for one store; some seconds of work. Beyond it clients are told to come back. */
const WAITING_CHANGES = 2_000;
/** Content that waits in this process, in UTF-16 code units, over all stores: what a machine of 1 GB can hold beside its work. */
const WAITING_CONTENT = 128 * 1024 * 1024;

interface Waiting {
  readonly author: StoreKey;
  readonly change: Change;
  readonly sender: string | undefined;
  readonly resolve: (outcome: Outcome) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * The one way to write files. The changes of a store are carried out one after the other, those that wait share a
 * transaction, and each is judged alone: a refused one changes nothing for its neighbours. A store takes one connection of
 * the pool at most, however many clients write to it. Broadcasts leave after the commit, in the order of `seq`.
 */
@Injectable()
export class FileWrites {
  private readonly lanes = new Map<string, Waiting[]>();
  private readonly running = new Set<Promise<void>>();
  private readonly written: Counter;
  private waitingContent = 0;
  private isStopping = false;

  constructor(
    private readonly database: AppDatabase,
    private readonly rooms: Rooms,
    metrics: Metrics,
  ) {
    this.written = metrics.counter('sync_changes_total', 'Changes asked for, by kind and result.', ['kind', 'result']);
  }

  /**
   * Carries out a change and tells the other clients.
   * @param sender the socket that asked for it and need not be told
   * @throws CodedError CONFLICT, NOT_FOUND (the store is gone), INTERNAL_ERROR (too much waits, or the gateway stops)
   */
  write(author: StoreKey, change: Change, sender?: string): Promise<Outcome> {
    const size = sizeOf(change);
    const lane = this.lanes.get(author.storeId);
    if (this.isStopping) return Promise.reject(syncError('INTERNAL_ERROR', 'The gateway is stopping. Connect again.'));
    if ((lane?.length ?? 0) >= WAITING_CHANGES || this.waitingContent + size > WAITING_CONTENT) {
      return Promise.reject(syncError('INTERNAL_ERROR', 'Too many changes are waiting. Try again in some seconds.'));
    }
    this.waitingContent += size;
    return new Promise((resolve, reject) => {
      const waiting = { author, change, sender, resolve, reject };
      if (lane) lane.push(waiting);
      else this.start(author.storeId, [waiting]);
    });
  }

  /** Ends what was accepted; what comes now is refused. */
  async drain(): Promise<void> {
    this.isStopping = true;
    await Promise.all(this.running);
  }

  private start(storeId: string, lane: Waiting[]): void {
    this.lanes.set(storeId, lane);
    const run = this.run(lane).finally(() => this.running.delete(run));
    this.running.add(run);
  }

  private async run(lane: Waiting[]): Promise<void> {
    const storeId = lane[0]!.author.storeId;
    while (lane.length > 0) {
      const batch = takeBatch(lane);
      await this.commit(batch);
      for (const { change } of batch) this.waitingContent -= sizeOf(change);
    }
    this.lanes.delete(storeId);
  }

  private async commit(batch: readonly Waiting[]): Promise<void> {
    const { tenantId, storeId } = batch[0]!.author;
    try {
      const results = await this.database.transaction(tenantId, async (tx) => {
        const store = { tenantId, id: storeId, head: await lockStore(tx, storeId) };
        const found: (Outcome | Error)[] = [];
        for (const waiting of batch) found.push(await judge(tx, store, waiting));
        return found;
      });
      for (const [place, waiting] of batch.entries()) this.settle(waiting, results[place]!);
    } catch (error) {
      // An unforeseen fault rolled all of them back; alone, only the one that caused it fails.
      if (batch.length === 1 || isCodedError(error)) for (const waiting of batch) this.settle(waiting, error as Error);
      else for (const waiting of batch) await this.commit([waiting]);
    }
  }

  private settle({ author, change, sender, resolve, reject }: Waiting, result: Outcome | Error): void {
    this.written.inc({ kind: change.kind, result: result instanceof Error ? 'refused' : 'done' });
    if (result instanceof Error) {
      reject(result);
      return;
    }
    for (const broadcast of result.broadcasts) this.rooms.announce(author, broadcast, sender);
    resolve(result);
  }
}

/** A refusal is an outcome of its own change; any other error is one of the whole transaction. */
async function judge(tx: Tx, store: LockedStore, { author, change }: Waiting): Promise<Outcome | Error> {
  try {
    return await carryOut(tx, store, author.id, change);
  } catch (error) {
    if (isCodedError(error)) return error;
    throw error;
  }
}

function takeBatch(lane: Waiting[]): Waiting[] {
  let count = 0;
  let content = 0;
  while (count < Math.min(lane.length, BATCH_CHANGES)) {
    content += sizeOf(lane[count]!.change);
    if (count > 0 && content > BATCH_CONTENT) break;
    count += 1;
  }
  return lane.splice(0, count);
}

function sizeOf(change: Change): number {
  return change.kind === 'put' ? change.content.length : 0;
}
