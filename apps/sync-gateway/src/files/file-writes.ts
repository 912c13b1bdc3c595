import { hash } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { isCodedError } from '@atomo-cc/kernel';
import { AppDatabase } from '@atomo-cc/platform/postgres';
import { type Counter, Metrics } from '@atomo-cc/platform/telemetry';
import { type OpDone, syncError } from '@atomo-cc/sync-protocol';
import type { StoreKey } from '../credentials/index.js';
import { Feeds } from '../feeds/index.js';
import { Bounds } from '../bounds/index.js';
import { type Answered, openWorkspace, writeWorkspace } from './commit.js';
import type { Author, Intent, Outcome, Workspace } from './workspace.js';

/** Intents that share a transaction: enough to spread the cost of a commit, few enough that the first is not kept waiting. */
const BATCH_INTENTS = 256;
/** Bytes in one transaction: a batch of large files must not become a transaction of a gigabyte. */
const BATCH_BYTES = 16 * 1024 * 1024;
/** Intents that wait for one store; some seconds of work. Beyond it clients are told to come back. */
const WAITING_INTENTS = 5_000;
/** Bytes that wait in this process, over all stores: what a machine of 1 GB can hold beside its work. */
const WAITING_BYTES = 128 * 1024 * 1024;

/** A write: who wants what, and under which operation of protocol 2. */
export interface Write {
  readonly key: StoreKey;
  readonly intent: Intent;
  readonly device?: string | null;
  /** The operation, and what it says: sent again it gets the stored answer, unless it says something else now. */
  readonly op?: { readonly id: string; readonly says: unknown };
  /** The socket of protocol 1 that need not hear of it. */
  readonly sender?: string;
}

/** What became of a write. */
export interface Written {
  readonly outcome: Outcome;
  /** The answer as it was stored under the operation; only for writes that have one. */
  readonly answer?: OpDone;
}

interface Waiting extends Write {
  readonly fingerprint: string;
  readonly resolve: (written: Written) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * The one way to write files. The writes of a store are decided one after the other, those that wait share a transaction, and
 * each is judged alone: a refused one changes nothing for its neighbours. A store takes one connection of the pool at most,
 * however many clients write to it. Those who read the store hear of it after the commit, in the order of `seq`.
 */
@Injectable()
export class FileWrites {
  private readonly lanes = new Map<string, Waiting[]>();
  private readonly running = new Set<Promise<void>>();
  private readonly written: Counter;
  private waitingBytes = 0;
  private isStopping = false;

  constructor(
    private readonly database: AppDatabase,
    private readonly feeds: Feeds,
    private readonly bounds: Bounds,
    metrics: Metrics,
  ) {
    this.written = metrics.counter('sync_changes_total', 'Changes asked for, by kind and result.', ['kind', 'result']);
  }

  /**
   * Carries out a write and tells the store's readers.
   * @throws CodedError CONFLICT, PRECONDITION_FAILED, PATH_COLLISION, NOT_FOUND, QUOTA_EXCEEDED, OP_ID_REUSED, INTERNAL_ERROR
   *   (too much waits, or the gateway stops)
   */
  write(write: Write): Promise<Written> {
    const { storeId } = write.key;
    const size = sizeOf(write.intent);
    const lane = this.lanes.get(storeId);
    if (this.isStopping) return Promise.reject(syncError('INTERNAL_ERROR', 'The gateway is stopping. Connect again.'));
    if ((lane?.length ?? 0) >= WAITING_INTENTS || this.waitingBytes + size > WAITING_BYTES) {
      return Promise.reject(syncError('INTERNAL_ERROR', 'Too many changes are waiting. Try again in some seconds.'));
    }
    this.waitingBytes += size;
    return new Promise((resolve, reject) => {
      const fingerprint = write.op ? fingerprintOf(write.op.says) : '';
      const waiting = { ...write, fingerprint, resolve, reject };
      if (lane) lane.push(waiting);
      else this.start(storeId, [waiting]);
    });
  }

  /** Ends what was accepted; what comes now is refused. */
  async drain(): Promise<void> {
    this.isStopping = true;
    await Promise.all(this.running);
  }

  private start(storeId: string, lane: Waiting[]): void {
    this.lanes.set(storeId, lane);
    const run = this.run(storeId, lane).finally(() => this.running.delete(run));
    this.running.add(run);
  }

  private async run(storeId: string, lane: Waiting[]): Promise<void> {
    // Writes of one turn of the event loop come together.
    await Promise.resolve();
    while (lane.length > 0) {
      const batch = takeBatch(lane);
      await this.feeds.during(storeId, () => this.commit(batch));
      for (const { intent } of batch) this.waitingBytes -= sizeOf(intent);
    }
    this.lanes.delete(storeId);
  }

  private async commit(batch: readonly Waiting[]): Promise<void> {
    const { tenantId, storeId } = batch[0]!.key;
    try {
      const results = await this.database.transaction(tenantId, async (tx) => {
        const intents = batch.map(({ intent }) => intent);
        const opIds = batch.flatMap(({ op }) => (op ? [op.id] : []));
        const { quotaBytes, retentionDays } = this.bounds;
        const { workspace, answered } = await openWorkspace(tx, tenantId, storeId, intents, opIds, quotaBytes);
        const answers: Answered[] = [];
        const found = batch.map((waiting) => judge(workspace, answered, answers, waiting));
        writeWorkspace(tx, workspace, answers, retentionDays);
        return found;
      });
      this.announce(batch, results);
      for (const [place, waiting] of batch.entries()) this.settle(waiting, results[place]!);
    } catch (error) {
      // An unforeseen fault rolled all of them back; alone, only the one that caused it fails.
      if (batch.length === 1 || isCodedError(error)) for (const waiting of batch) this.settle(waiting, error as Error);
      else for (const waiting of batch) await this.commit([waiting]);
    }
  }

  private announce(batch: readonly Waiting[], results: readonly (Written | Error)[]): void {
    const { storeId } = batch[0]!.key;
    const changes = batch.flatMap(({ sender }, place) => {
      const result = results[place]!;
      if (result instanceof Error) return [];
      return result.outcome.changes.map((change) => ({ ...change, sender }));
    });
    if (changes.length > 0) this.feeds.committed(storeId, changes);
  }

  private settle({ intent, resolve, reject }: Waiting, result: Written | Error): void {
    this.written.inc({ kind: intent.kind, result: result instanceof Error ? 'refused' : 'done' });
    if (result instanceof Error) reject(result);
    else resolve(result);
  }
}

/** A refusal is an outcome of its own write; any other error is one of the whole transaction. */
function judge(
  workspace: Workspace,
  answered: Map<string, Answered>,
  answers: Answered[],
  { key, intent, op, device, fingerprint }: Waiting,
): Written | Error {
  try {
    const before = op && answered.get(op.id);
    if (before) {
      if (before.fingerprint !== fingerprint) {
        throw syncError('OP_ID_REUSED', 'Another operation was sent under this opId.');
      }
      const outcome = { seq: before.answer.seq, changes: [], file: null };
      return { outcome, answer: { ...before.answer, replayed: true } };
    }
    const author: Author = {
      keyId: key.id,
      device: device ?? null,
      opId: op?.id ?? null,
      canRead: key.permissions.includes('read'),
    };
    const outcome = workspace.decide(author, intent);
    if (!op) return { outcome };
    const answer = answerOf(op.id, intent, outcome, author.canRead);
    const kept = { opId: op.id, fingerprint, answer };
    answered.set(op.id, kept);
    answers.push(kept);
    return { outcome, answer };
  } catch (error) {
    if (isCodedError(error)) return error;
    throw error;
  }
}

/** Who may not read learns no hash but that of what it sent. */
function answerOf(
  opId: string,
  { kind }: Intent,
  { seq, changes, file, overwrote }: Outcome,
  canRead: boolean,
): OpDone {
  const isOfFile = kind === 'put' || kind === 'delete' || kind === 'rename';
  return {
    opId,
    success: true,
    seq,
    changes: changes.length,
    ...(isOfFile && { fileId: file?.id ?? changes[0]?.fileId ?? null }),
    ...(isOfFile && (canRead || kind !== 'rename') && { hash: file?.hash ?? null }),
    ...(changes.length === 0 && { unchanged: true as const }),
    ...(overwrote && canRead && { overwrote }),
  };
}

function fingerprintOf(says: unknown): string {
  return hash('sha256', JSON.stringify(says), 'base64url').slice(0, 22);
}

function takeBatch(lane: Waiting[]): Waiting[] {
  let count = 0;
  let bytes = 0;
  while (count < Math.min(lane.length, BATCH_INTENTS)) {
    bytes += sizeOf(lane[count]!.intent);
    if (count > 0 && bytes > BATCH_BYTES) break;
    count += 1;
  }
  return lane.splice(0, count);
}

function sizeOf(intent: Intent): number {
  return intent.kind === 'put' ? (intent.content.bytes?.length ?? 0) : 0;
}
