import { CodedError } from '@atomo-cc/kernel';

/** What a caller is told when writes arrive faster than they can be committed for long. */
export const GROUP_COMMIT_ERRORS = {
  WRITES_OVERLOADED: 'More commands wait than are kept waiting. Nothing was written; send it again in a moment.',
} as const;

/**
 * The most commands of one transaction. Measured elsewhere on two cores: 256 per transaction, two under way, gave twelve
 * times the rate of a transaction each; larger ones only make the last caller wait longer.
 */
const MAX_BATCH = 256;
/** Transactions under way per group: one is being flushed to disk while the next is prepared. */
const MAX_IN_FLIGHT = 2;
/** Commands that wait per group: a few seconds' worth. Beyond, an error at once serves the caller better than a timeout. */
const MAX_WAITING = 10_000;

/** How commands are committed. */
export interface GroupCommitOptions<Command, Outcome> {
  /**
   * Runs commands in one transaction, in their order, and answers one outcome each. A command that is refused for its own
   * sake is an outcome. A rejection means that none of them took effect, or that nobody knows (see `isRolledBack`).
   */
  readonly commit: (group: string, commands: readonly Command[]) => Promise<readonly Outcome[]>;
  /** The streams a command writes. Two commands that share one are never in different transactions at the same time. */
  readonly streamsOf: (command: Command) => readonly string[];
  /** True for an error after which the transaction is known to be rolled back, so that its commands may be tried again. */
  readonly isRolledBack: (error: unknown) => boolean;
  /** True for a command that shares its transaction with no other; others may be under way beside it. None unless given. */
  readonly isAlone?: (command: Command) => boolean;
  readonly maxBatch?: number;
  readonly maxInFlight?: number;
  readonly maxWaiting?: number;
}

interface Waiting<Command, Outcome> {
  readonly command: Command;
  readonly streams: readonly string[];
  readonly resolve: (outcome: Outcome) => void;
  readonly reject: (error: unknown) => void;
}

interface Group<Command, Outcome> {
  waiting: Waiting<Command, Outcome>[];
  inFlight: number;
  readonly busyStreams: Set<string>;
  isScheduled: boolean;
}

/**
 * Lets concurrent commands share transactions: each is acknowledged only after its commit, but one flush to disk serves all
 * that arrived meanwhile. There is no timer: a lone command starts at once, and under load the batch is what gathered while
 * the transactions before it were under way.
 *
 * When a whole transaction fails, its commands are tried again in halves until the one at fault stands alone, so it fails no
 * neighbour. After an error that leaves open whether the commit happened (a broken connection) nothing is tried again: all
 * its callers get the error, and an idempotency key makes their own repeat safe.
 */
export class GroupCommit<Command, Outcome> {
  private readonly groups = new Map<string, Group<Command, Outcome>>();
  private readonly maxBatch: number;
  private readonly maxInFlight: number;
  private readonly maxWaiting: number;

  constructor(private readonly options: GroupCommitOptions<Command, Outcome>) {
    this.maxBatch = options.maxBatch ?? MAX_BATCH;
    this.maxInFlight = options.maxInFlight ?? MAX_IN_FLIGHT;
    this.maxWaiting = options.maxWaiting ?? MAX_WAITING;
  }

  /**
   * Answers the command's outcome once it is committed. Commands on one stream take effect in the order of their calls.
   * @param name the group whose commands may share a transaction: the tenant
   * @throws CodedError WRITES_OVERLOADED at once, with nothing done; else what `commit` throws for this command
   */
  submit(name: string, command: Command): Promise<Outcome> {
    const group = this.groupNamed(name);
    if (group.waiting.length >= this.maxWaiting) {
      return Promise.reject(
        new CodedError('WRITES_OVERLOADED', 'Too many writes wait. Nothing was written; send it again in a moment.'),
      );
    }
    return new Promise((resolve, reject) => {
      group.waiting.push({ command, streams: this.options.streamsOf(command), resolve, reject });
      this.schedule(name, group);
    });
  }

  /** Commands that wait for a transaction, of all groups; for metrics. */
  get waiting(): number {
    let waiting = 0;
    for (const group of this.groups.values()) waiting += group.waiting.length;
    return waiting;
  }

  private groupNamed(name: string): Group<Command, Outcome> {
    let group = this.groups.get(name);
    if (!group) {
      group = { waiting: [], inFlight: 0, busyStreams: new Set(), isScheduled: false };
      this.groups.set(name, group);
    }
    return group;
  }

  /** Begins after the requests that arrived in the same turn of the event loop are here too. */
  private schedule(name: string, group: Group<Command, Outcome>): void {
    if (group.isScheduled) return;
    group.isScheduled = true;
    setImmediate(() => {
      group.isScheduled = false;
      this.begin(name, group);
    });
  }

  private begin(name: string, group: Group<Command, Outcome>): void {
    while (group.inFlight < this.maxInFlight && group.waiting.length > 0) {
      const batch = takeBatch(group, this.maxBatch, this.options.isAlone);
      if (batch.length === 0) return;
      group.inFlight += 1;
      void this.run(name, batch).finally(() => {
        group.inFlight -= 1;
        for (const { streams } of batch) for (const stream of streams) group.busyStreams.delete(stream);
        if (group.inFlight === 0 && group.waiting.length === 0) this.groups.delete(name);
        else this.begin(name, group);
      });
    }
  }

  private async run(name: string, batch: readonly Waiting<Command, Outcome>[]): Promise<void> {
    let outcomes: readonly Outcome[];
    try {
      outcomes = await this.options.commit(
        name,
        batch.map((waiting) => waiting.command),
      );
    } catch (error) {
      if (batch.length === 1 || !this.options.isRolledBack(error)) {
        for (const waiting of batch) waiting.reject(error);
        return;
      }
      const half = Math.ceil(batch.length / 2);
      await this.run(name, batch.slice(0, half));
      await this.run(name, batch.slice(half));
      return;
    }
    batch.forEach((waiting, index) => waiting.resolve(outcomes[index]!));
  }
}

/**
 * Takes the next commands that may go together, and marks their streams busy. A command whose stream is in another
 * transaction stays, and so does every later one that shares a stream with it: order within a stream is kept.
 */
function takeBatch<Command, Outcome>(
  group: Group<Command, Outcome>,
  maxBatch: number,
  isAlone: (command: Command) => boolean = () => false,
): Waiting<Command, Outcome>[] {
  let size = maxBatch;
  const taken: Waiting<Command, Outcome>[] = [];
  const left: Waiting<Command, Outcome>[] = [];
  const heldBack = new Set<string>();
  for (const waiting of group.waiting) {
    const mustWait = waiting.streams.some((stream) => group.busyStreams.has(stream) || heldBack.has(stream));
    const alone = !mustWait && isAlone(waiting.command);
    if (!mustWait && taken.length < size && !(alone && taken.length > 0)) {
      taken.push(waiting);
      if (alone) size = 1;
    } else {
      left.push(waiting);
      for (const stream of waiting.streams) heldBack.add(stream);
    }
  }
  group.waiting = left;
  for (const { streams } of taken) for (const stream of streams) group.busyStreams.add(stream);
  return taken;
}
