import { isCodedError, sleep } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import {
  claimErasure,
  completeErasure,
  eraseFromBuilds,
  eraseFromLog,
  postponeErasure,
  type Erasure,
  type EventCodec,
  type Sought,
} from '@atomo-cc/event-store';
import type { ModelDefinition, SchemaDefinition } from '@atomo-cc/schema';
import type { SystemDatabase } from '@atomo-cc/platform/postgres';
import { erasePersonal, personalFields } from '../models/index.js';

/** How often erasures are looked for that nobody has told of: those of other instances, and those that wait for another attempt. */
const POLL_MS = 5_000;

/** What erasures are carried out with. */
export interface ErasureWork {
  readonly schema: SchemaDefinition;
  readonly system: SystemDatabase;
  readonly codec: EventCodec;
  /** Told of what stops an attempt; the erasure is tried again. */
  readonly onError: (error: unknown, erasure: Erasure | null) => void;
}

/**
 * Carries out what `eraseSubject` has written down: every place where something of the subject is kept, in an order in which each
 * step may be taken again, so that an erasure that was cut short goes on at any instance. It is over when the last place is empty;
 * what fails is tried for ever, and `subjectErasures` tells of it.
 */
export class Erasures {
  private readonly stopping = new AbortController();
  private nap = new AbortController();
  private running: Promise<void> = Promise.resolve();

  constructor(private readonly work: ErasureWork) {}

  start(): void {
    this.running = this.run();
  }

  /** Looks soon: somebody has just asked for one. */
  wake(): void {
    this.nap.abort();
  }

  /** Ends after the erasure that is under way. */
  async stop(): Promise<void> {
    this.stopping.abort();
    this.nap.abort();
    await this.running;
  }

  /** Carries out those that are due, one after the other, and answers how many were completed. */
  async look(): Promise<number> {
    const { system, onError } = this.work;
    for (let completed = 0; ;) {
      if (this.stopping.signal.aborted) return completed;
      const erasure = await claimErasure(system);
      if (!erasure) return completed;
      try {
        await this.carryOut(erasure);
        completed += 1;
      } catch (error) {
        onError(error, erasure);
        // Its words may quote what is to be erased.
        await postponeErasure(system, erasure, isCodedError(error) ? error.code : 'INTERNAL_ERROR');
      }
    }
  }

  private async run(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      this.nap = new AbortController();
      try {
        await this.look();
      } catch (error) {
        this.work.onError(error, null);
      }
      if (!this.stopping.signal.aborted) await sleep(POLL_MS, this.nap.signal);
    }
  }

  private async carryOut(erasure: Erasure): Promise<void> {
    const { schema, system, codec } = this.work;
    const [name, id] = split(erasure.subject);
    const model = schema.models.find((each) => each.name === name);
    const sought = await eraseFromLog(system, codec, erasure, (events) => gather(model, events));
    await eraseFromBuilds(system, erasure, sought, null, async (tx, table) => {
      if (model) await erasePersonal(tx, model, table, { ...erasure, id });
    });
    await completeErasure(system, erasure);
  }
}

function split(subject: string): [model: string, id: string] {
  const dash = subject.indexOf('-');
  return [subject.slice(0, dash), subject.slice(dash + 1)];
}

/** What was ever personal of a record: e-mail addresses, and all other texts, those within documents too. */
function gather(model: ModelDefinition | undefined, events: readonly RecordedEvent[]): Sought {
  const names = model ? personalFields(model) : [];
  const [addresses, values] = [new Set<string>(), new Set<string>()];
  const take = (value: unknown): void => {
    if (typeof value === 'object' && value !== null) for (const part of Object.values(value)) take(part);
    if (typeof value !== 'string' || value.trim() === '') return;
    if (/^[^\s@]+@[^\s@]+$/.test(value)) addresses.add(value.toLowerCase());
    else values.add(value);
  };
  for (const { data } of events) for (const name of names) take(data[name]);
  return { addresses: [...addresses], values: [...values] };
}
