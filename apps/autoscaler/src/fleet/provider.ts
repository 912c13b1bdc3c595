import { CodedError } from '@atomo-cc/kernel';
import type { RegisteredWorker } from '@atomo-cc/platform/workers';
import type { FleetErrorCode } from './errors.js';

/** A worker as its provider sees it, whether or not it has made itself known yet. */
export interface Instance {
  /** The provider's own name of it: a process id, a machine id. */
  readonly id: string;
  /** When it was started, in milliseconds since 1970. */
  readonly startedAt: number;
  /** It has been told to stop and has not ended yet. */
  readonly stopping: boolean;
}

/** A worker that ended, as a provider noticed it. */
export interface Ending {
  readonly id: string;
  /** In words, such as `exit code 1; its log: …`. */
  readonly how: string;
}

/** Where workers run: local processes, a cloud's machines, or elsewhere. */
export interface WorkerProvider {
  readonly kind: 'local' | 'fly' | 'none';
  /** False when this provider cannot change anything: decisions are then advice. */
  readonly canAct: boolean;
  /** The instances that run or are about to. `registered` lets it adopt what an earlier autoscaler started. */
  list(registered: readonly RegisteredWorker[]): Promise<Instance[]>;
  /** Which of its instances a registered worker is; null for a worker that is not its own. */
  instanceOf(worker: RegisteredWorker): string | null;
  /** Which of its instances a registered worker was whose process has ended: the last heartbeat outlasts it by seconds. */
  endedInstanceOf(worker: RegisteredWorker): string | null;
  /** Starts one worker and answers once it runs, before it is ready. @throws CodedError of FLEET_ERRORS */
  start(): Promise<Instance>;
  /** Tells an empty worker to end, without waiting for it. @throws CodedError of FLEET_ERRORS */
  stop(id: string): Promise<void>;
  /** What ended since the last call, so that a worker's failure has a reason. */
  endings(): Ending[];
  /** Calls `listener` when an instance ended, so that nobody has to wait for the next look. */
  onChange(listener: () => void): void;
  /** At the end of the autoscaler. `leads`: it is the one that acts, so workers that should not outlive it end with it. */
  close(leads: boolean): Promise<void>;
}

/** Makes an error that says why a worker could not be started or stopped. */
export function fleetError(code: FleetErrorCode, message: string, cause?: unknown): CodedError {
  return new CodedError(code, message, undefined, cause === undefined ? undefined : { cause });
}

/** The provider of a deployment that runs its workers itself, such as compose: it watches and advises. */
export function watchingProvider(): WorkerProvider {
  const refuse = () =>
    Promise.reject(fleetError('FLEET_NOT_PERMITTED', 'AUTOSCALER_PROVIDER is none: workers are run by others.'));
  return {
    kind: 'none',
    canAct: false,
    list: () => Promise.resolve([]),
    instanceOf: () => null,
    endedInstanceOf: () => null,
    start: refuse,
    stop: refuse,
    endings: () => [],
    onChange: () => undefined,
    close: () => Promise.resolve(),
  };
}
