import { isCodedError } from '@atomo-cc/kernel';
import type { RegisteredWorker } from '@atomo-cc/platform/workers';
import { fleetError, type Ending, type Instance, type WorkerProvider } from '../fleet/index.js';
import { MachinesClient, type Machine, type MachinesOptions } from './machines-client.js';

/** Fly allows one listing a second; the loop looks every second and operators look too, so a listing serves this long. */
const LISTING_MS = 2_000;
/** Long enough for a start or stop with its repetitions, short enough to free a Machine soon when we die meanwhile. */
const LEASE_SECONDS = 60;
/** The longest that Fly grants a Machine between SIGTERM and SIGKILL; the worker is empty and ends at once. */
const STOP_SECONDS = 300;
/** States in which a Machine is down and can be started; https://fly.io/docs/machines/machine-states/ */
const STARTABLE = ['stopped', 'suspended', 'created'];
/** States in which a Machine runs or is about to. */
const ALIVE = ['creating', 'starting', 'started', 'restarting', 'updating', 'replacing', 'stopping', 'suspending'];
const ENDING = ['stopping', 'suspending'];

/** Which Machines are the workers. */
export interface FlyOptions extends MachinesOptions {
  readonly group: string;
  /** No Machine is made beyond this number, whatever state the others are in: each one costs money even when stopped. */
  readonly maxMachines: number;
}

/**
 * Runs workers as Fly Machines of one process group. A stopped Machine is started before a new one is made, because it
 * starts in a second; a new one is a copy of the group's first, because `fly deploy` only keeps up Machines that carry the
 * metadata of a group in fly.toml. A Machine is never destroyed: the pool waits, stopped, for the next burst.
 */
export class FlyProvider implements WorkerProvider {
  readonly kind = 'fly';
  readonly canAct = true;
  private readonly client: MachinesClient;
  private known: readonly Machine[] = [];
  private listing: { at: number; machines: Promise<Machine[]> } | undefined;

  constructor(private readonly options: FlyOptions) {
    this.client = new MachinesClient(options);
  }

  async list(): Promise<Instance[]> {
    const machines = await this.machines(LISTING_MS);
    return machines.filter(({ state }) => ALIVE.includes(state)).map(instanceOf);
  }

  /** Workers are known by their FLY_MACHINE_ID, which they put into the registry. */
  instanceOf(worker: RegisteredWorker): string | null {
    return worker.machine !== null && this.known.some(({ id }) => id === worker.machine) ? worker.machine : null;
  }

  /** A Machine that ended stays on the list as stopped, so `instanceOf` still knows it. */
  endedInstanceOf(): null {
    return null;
  }

  async start(): Promise<Instance> {
    const machines = await this.machines(0);
    try {
      const stopped = machines.filter((machine) => STARTABLE.includes(machine.state) && isUsable(machine));
      return stopped.length > 0 ? await this.startOneOf(stopped) : await this.copyFirst(machines);
    } finally {
      this.listing = undefined;
    }
  }

  async stop(id: string): Promise<void> {
    try {
      await this.client.withLease(id, LEASE_SECONDS, async (nonce) => {
        await this.client.setCordoned(id, nonce, true);
        await this.client.stop(id, nonce, STOP_SECONDS);
      });
    } finally {
      this.listing = undefined;
    }
  }

  endings(): Ending[] {
    return [];
  }

  onChange(): void {
    // Fly tells nobody; the loop looks.
  }

  async close(): Promise<void> {
    // Machines are not ours to end: the next autoscaler goes on with them.
  }

  /** The first that nobody else is changing at this moment. */
  private async startOneOf(stopped: readonly Machine[]): Promise<Instance> {
    let lastError: unknown;
    for (const machine of stopped) {
      try {
        await this.client.withLease(machine.id, LEASE_SECONDS, async (nonce) => {
          await this.client.setCordoned(machine.id, nonce, false);
          await this.client.start(machine.id, nonce);
        });
        return { id: machine.id, startedAt: this.options.now(), stopping: false };
      } catch (error) {
        const isTaken = isCodedError(error) && ['FLEET_BUSY', 'FLEET_WORKER_GONE'].includes(error.code);
        if (!isTaken) throw error;
        lastError = error;
      }
    }
    throw lastError;
  }

  private async copyFirst(machines: readonly Machine[]): Promise<Instance> {
    const { app, group, maxMachines } = this.options;
    const template = machines.find(isUsable) ?? machines[0];
    if (!template) {
      throw fleetError(
        'FLEET_NO_TEMPLATE',
        `App ${app} has no Machine in the process group ${group}: deploy the worker there once.`,
      );
    }
    if (machines.length >= maxMachines) {
      throw fleetError(
        'FLEET_MISCONFIGURED',
        `App ${app} has ${machines.length} Machines and none can be started: look at \`fly machines list\`.`,
      );
    }
    const metadata = { ...template.config.metadata, fly_process_group: group };
    return instanceOf(await this.client.create(template.region, { ...template.config, metadata }));
  }

  /** The group's Machines, oldest first, as they were at most `maxAgeMs` ago. */
  private async machines(maxAgeMs: number): Promise<Machine[]> {
    const now = this.options.now();
    if (!this.listing || Math.abs(now - this.listing.at) > maxAgeMs) {
      const machines = this.client.list(this.options.group).then((all) => {
        this.known = all.toSorted((a, b) => a.created_at.localeCompare(b.created_at) || a.id.localeCompare(b.id));
        return [...this.known];
      });
      const listing = { at: now, machines };
      this.listing = listing;
      machines.catch(() => {
        if (this.listing === listing) this.listing = undefined;
      });
    }
    return this.listing.machines;
  }
}

function isUsable(machine: Machine): boolean {
  return machine.host_status === undefined || machine.host_status === 'ok';
}

function instanceOf(machine: Machine): Instance {
  const started = machine.events?.find(({ type }) => type === 'start' || type === 'launch');
  return {
    id: machine.id,
    startedAt: started?.timestamp ?? Date.parse(machine.updated_at),
    stopping: ENDING.includes(machine.state),
  };
}
