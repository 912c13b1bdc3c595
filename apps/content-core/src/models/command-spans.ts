import { openSpan, recordSpan, spanTime, type OpenSpan } from '@atomo-cc/platform/telemetry';
import type { ApiContext } from '../api/index.js';

/** A command, as far as its spans look at it. */
interface Traced {
  readonly context: ApiContext;
}

/**
 * The spans of one run of a batch: each command whose trace is recorded gets a `decide` (from the begin of the run: what it
 * waits for there is read and locked for all at once) and, if it has something to remember, an `append` until the commit.
 */
export class CommandSpans {
  private readonly begun = spanTime();
  private readonly appends = new Map<Traced, { readonly span: OpenSpan; readonly begun: number }>();

  private constructor(private readonly commands: readonly Traced[]) {}

  /** Of the batch; null when none of its commands is traced, so that a batch without traces pays for one look at each. */
  static of(commands: readonly Traced[]): CommandSpans | null {
    return commands.some(isTraced) ? new CommandSpans(commands) : null;
  }

  /** Begins the command's `append`, and answers its `traceparent` for the metadata of the events; absent without a trace. */
  append(command: Traced): string | undefined {
    const begun = spanTime();
    const span = openSpan('append', { ...this.common(command), startTime: begun });
    if (span) this.appends.set(command, { span, begun });
    return span?.traceparent;
  }

  /** All are decided; the outcomes, in the order of the commands, say of those that were refused why. */
  decided(outcomes: readonly object[]): void {
    const now = spanTime();
    this.commands.forEach((command, index) => {
      if (!isTraced(command)) return;
      const outcome = outcomes[index] as { readonly refused?: unknown };
      recordSpan('decide', {
        ...this.common(command),
        startTime: this.begun,
        endTime: this.appends.get(command)?.begun ?? now,
        error: outcome.refused,
      });
    });
  }

  /** The run is over: its transaction is committed, or ended with the error. */
  ended(error?: unknown): void {
    const time = spanTime();
    for (const { span } of this.appends.values()) span.end({ time, error });
  }

  private common({ context }: Traced) {
    return { parent: context.traceparent, attributes: { 'atomo.batch.commands': this.commands.length } };
  }
}

const isTraced = ({ context }: Traced): boolean => context.traceparent !== undefined;
