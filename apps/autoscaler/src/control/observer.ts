import type { Redis } from '@atomo-cc/platform/redis';
import type { JobQueues, QueueDepth } from '@atomo-cc/platform/queues';
import { listWorkers, type RegisteredWorker } from '@atomo-cc/platform/workers';
import type { Ending, Instance, WorkerProvider } from '../fleet/index.js';
import { SHORT_LIFE_MS, STARTUP_LIMIT_MS, type QueueView, type WorkerView } from './policy.js';
import { markQueue, type QueueMarks, type SharedState } from './shared-state.js';

/**
 * After a pause of our own this long (a paused machine, Redis gone) silence of others says nothing: all of them count as
 * heard of just now.
 */
const BLIND_AFTER_MS = 5_000;

/** A worker that ended without having been told to. */
export interface Loss {
  readonly id: string;
  /** In words. */
  readonly how: string;
  /** `boot`: it never made itself known; `crash`: it ended young; `late`: it had worked for a while. */
  readonly kind: 'boot' | 'crash' | 'late';
}

/** One look at everything. */
export interface Observation {
  readonly queues: readonly QueueView[];
  readonly workers: readonly WorkerView[];
  /** The same workers' ids in the registry, for those that are there. */
  readonly registered: ReadonlyMap<string, RegisteredWorker>;
  /** Who ended since the last look. */
  readonly losses: readonly Loss[];
}

/** What provider and registry say about one worker, taken together. */
export interface FleetMember {
  readonly id: string;
  readonly instance: Instance | null;
  readonly worker: RegisteredWorker | null;
}

/** All workers there are: those of the provider, with their heartbeats, and those that others run. */
export async function listFleet(provider: WorkerProvider, redis: Redis): Promise<FleetMember[]> {
  return (await surveyFleet(provider, redis)).members;
}

async function surveyFleet(provider: WorkerProvider, redis: Redis) {
  const registered = await listWorkers(redis);
  const instances = await provider.list(registered);
  const owned = new Map<string, RegisteredWorker>();
  const foreign: RegisteredWorker[] = [];
  /** Instances that ended lately and had made themselves known: their last heartbeats are still there. */
  const endedAfterBeat = new Set<string>();
  for (const worker of registered) {
    const owner = provider.instanceOf(worker);
    const formerOwner = owner === null ? provider.endedInstanceOf(worker) : null;
    if (owner !== null) owned.set(owner, worker);
    else if (formerOwner !== null) endedAfterBeat.add(formerOwner);
    else foreign.push(worker);
  }
  const members: FleetMember[] = [
    ...instances.map((instance) => ({ id: instance.id, instance, worker: owned.get(instance.id) ?? null })),
    ...foreign.map((worker) => ({ id: worker.id, instance: null, worker })),
  ];
  return { members, endedAfterBeat };
}

interface Memory {
  /** Workers that others run come and go as those please. */
  readonly managed: boolean;
  readonly startedAt: number;
  heardAt: number | null;
  stopping: boolean;
}

/** The leader's eyes: it remembers when it heard of whom, which one look cannot tell. */
export class Observer {
  private readonly memory = new Map<string, Memory>();
  private readonly endings = new Map<string, Ending>();
  private lookedAt = 0;

  constructor(
    private readonly provider: WorkerProvider,
    private readonly queues: JobQueues,
    private readonly redis: Redis,
    private readonly state: SharedState,
  ) {}

  /** Forgets what it saw, because others may have acted since. */
  forget(): void {
    this.memory.clear();
    this.endings.clear();
  }

  /** Looks at queues and workers. Rejects when Redis or the provider does not answer; nothing can be decided then. */
  async look(now: number): Promise<Observation> {
    const [depths, marks, { members: fleet, endedAfterBeat }] = await Promise.all([
      this.queues.depths(),
      this.state.marks(),
      surveyFleet(this.provider, this.redis),
    ]);
    // A worker may have made itself known and ended between two looks.
    for (const id of endedAfterBeat) {
      const known = this.memory.get(id);
      if (known) known.heardAt ??= now;
    }
    const isBlind = now - this.lookedAt > BLIND_AFTER_MS;
    this.lookedAt = now;
    const workers = fleet.map((member) => this.see(member, isBlind, now));
    const registered = new Map(fleet.flatMap(({ id, worker }) => (worker ? [[id, worker] as const] : [])));
    return { queues: await this.mark(depths, marks, now), workers, registered, losses: this.losses(fleet, now) };
  }

  private see({ id, instance, worker }: FleetMember, isBlind: boolean, now: number): WorkerView {
    const startedAt = instance?.startedAt ?? worker?.startedAt ?? now;
    const known = this.memory.get(id) ?? { managed: instance !== null, startedAt, heardAt: null, stopping: false };
    this.memory.set(id, known);
    // Whoever should have made itself known before we looked may have done so.
    const mayHaveBeaten = isBlind && (known.heardAt !== null || now - startedAt > STARTUP_LIMIT_MS);
    if (worker || mayHaveBeaten) known.heardAt = now;
    known.stopping ||= instance?.stopping ?? false;
    return {
      id,
      managed: instance !== null,
      startedAt,
      heardAt: known.heardAt,
      beating: worker !== null,
      activeJobs: worker?.activeJobs ?? 0,
      concurrency: worker?.concurrency ?? 1,
      idleMs: worker?.idleMs ?? 0,
      draining: worker?.draining ?? false,
      drained: worker?.drained ?? false,
      stopping: instance?.stopping ?? false,
    };
  }

  private losses(fleet: readonly FleetMember[], now: number): Loss[] {
    for (const ending of this.provider.endings()) this.endings.set(ending.id, ending);
    const present = new Set(fleet.map(({ id }) => id));
    const lost: Loss[] = [];
    for (const [id, known] of this.memory) {
      if (present.has(id)) continue;
      this.memory.delete(id);
      const how = this.endings.get(id)?.how ?? 'it is no longer there';
      if (known.stopping || !known.managed) continue;
      const kind = known.heardAt === null ? 'boot' : now - known.startedAt < SHORT_LIFE_MS ? 'crash' : 'late';
      lost.push({ id, how, kind });
    }
    this.endings.clear();
    return lost;
  }

  private async mark(
    depths: readonly QueueDepth[],
    known: ReadonlyMap<string, QueueMarks>,
    now: number,
  ): Promise<QueueView[]> {
    return Promise.all(
      depths.map(async ({ name, waiting, active }) => {
        const before = known.get(name);
        const marks = markQueue(before, { waiting, active }, now);
        if (marks !== before) await this.state.setMarks(name, marks);
        return { name, waiting, active, waitingSince: marks.waitingSince };
      }),
    );
  }
}
