import { CodedError, isCodedError, Rounds, type TenantId } from '@atomo-cc/kernel';
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
import { forgetPerson, type Embedder, type SemanticStore } from '@atomo-cc/memory';
import type { ModelDefinition, SchemaDefinition } from '@atomo-cc/schema';
import type { BlobStore } from '@atomo-cc/platform/blobs';
import { changeTables, type AppDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { eraseQuotes, listImports } from '@atomo-cc/sync-jobs';
import { erasePersonal, historyTable, personalFields } from '../models/index.js';

/** How often erasures are looked for that nobody has told of: those of other instances, and those that wait for another attempt. */
const POLL_MS = 5_000;

/** The tables besides the model's own in which values of a subject may have stood. */
const OTHER_TABLES = [
  'memory_records',
  'graph_nodes',
  'graph_person_words',
  'quarantined_records',
  'historical_sync_jobs',
  'blobs',
  'blob_pieces',
  'command_answers',
  'projection_dead_letters',
  'projection_checkpoints',
  'projection_builds',
];

/** What an erasure waits for. */
export const ERASURE_ERRORS = {
  ERASURE_WAITS_FOR_IMPORT:
    'An import of the tenant is under way or paused, and its upload may have mail of the person. The upload is removed, and the erasure completed, once the import has ended: wait, or cancel it.',
} as const;

/** What erasures are carried out with. */
export interface ErasureWork {
  readonly schema: SchemaDefinition;
  /** Of the tables' owner, who alone may have Postgres gather its statistics anew: they quote values. */
  readonly databaseUrl: string;
  readonly database: AppDatabase;
  readonly memory: { readonly store: SemanticStore; readonly embedder: Embedder };
  readonly blobs: BlobStore;
  /** How long readers of the memory index have to leave it; some seconds unless given. */
  readonly readersLeaveMs?: number;
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
  /** Woken by whoever has just asked for one; stops after the erasure that is under way. */
  readonly rounds: Rounds;

  constructor(private readonly work: ErasureWork) {
    this.rounds = new Rounds(
      () => this.look(),
      POLL_MS,
      (error) => work.onError(error, null),
    );
  }

  /** Carries out those that are due, one after the other, and answers how many were completed. */
  async look(): Promise<number> {
    const { system, onError } = this.work;
    for (let completed = 0; ;) {
      if (this.rounds.isStopping) return completed;
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

  private async carryOut(erasure: Erasure): Promise<void> {
    const { schema, database, system, codec, blobs } = this.work;
    const [name, id] = split(erasure.subject);
    const model = schema.models.find((each) => each.name === name);
    const sought = await eraseFromLog(system, codec, erasure, (events) => soughtIn(model, events));
    const tables = new Set(OTHER_TABLES);
    await eraseFromBuilds(system, erasure, sought, null, async (tx, table) => {
      if (!model) return;
      for (const name of [table(model.table), table(historyTable(model))]) {
        if (name === null) continue;
        await erasePersonal(tx, model, name, { ...erasure, id });
        tables.add(name);
      }
    });
    const imports = await database.transaction(erasure.tenant, listImports);
    const isWaiting = imports.some(({ isOver }) => !isOver);
    // At once; and again when nothing more can come in, but not in each attempt between.
    if (!isWaiting || erasure.attempts === 1) await this.forget(erasure.tenant, sought);
    // Nobody can take one mail out of an archive, so every upload goes that is read to its end: what it said is in the memory.
    for (const { importId, isOver } of imports) if (isOver) await blobs.delete(erasure.tenant, importId);
    if (isWaiting) throw new CodedError('ERASURE_WAITS_FOR_IMPORT', ERASURE_ERRORS.ERASURE_WAITS_FOR_IMPORT);
    await this.forgetStatistics([...tables]);
    await completeErasure(system, erasure);
  }

  private async forget(tenant: TenantId, sought: Sought): Promise<void> {
    const { database, memory, readersLeaveMs } = this.work;
    const target = { ...memory, db: database, tenant };
    await forgetPerson(target, sought, readersLeaveMs === undefined ? {} : { readersLeaveMs });
    await database.transaction(tenant, (tx) => eraseQuotes(tx, [...sought.addresses, ...sought.values]));
  }

  /** Postgres keeps the commonest values of columns, and samples of others, until it looks again, which may be never. */
  private async forgetStatistics(tables: readonly string[]): Promise<void> {
    await changeTables(this.work.databaseUrl, async (tx) => {
      // One that is dropped meanwhile takes its statistics along.
      for (const table of tables) {
        const [found] = await tx.query<{ name: string | null }>('select to_regclass($1)::text as name', [table]);
        if (found!.name) await tx.query(`analyze ${found!.name}`);
      }
    });
  }
}

function split(subject: string): [model: string, id: string] {
  const dash = subject.indexOf('-');
  return [subject.slice(0, dash), subject.slice(dash + 1)];
}

/** What was ever personal of a record: e-mail addresses, and all other texts, those within documents too. */
export function soughtIn(model: ModelDefinition | undefined, events: readonly RecordedEvent[]): Sought {
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
