import { Body, Controller, Get, HttpCode, Inject, Post, Query, UseGuards } from '@nestjs/common';
import { plainToInstance } from 'class-transformer';
import { IsInt, Max, Min, ValidateIf, validateSync } from 'class-validator';
import { apiError, isCodedError } from '@atomo-cc/kernel';
import type { JobQueues } from '@atomo-cc/platform/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import {
  DECISIONS_KEPT,
  floorOf,
  listFleet,
  markQueue,
  MIN_WORKERS,
  type ControlLoop,
  type Leadership,
  type Limits,
  type SharedState,
} from '../control/index.js';
import type { WorkerProvider } from '../fleet/index.js';
import { OpsTokenGuard } from './ops-token.js';

/** What the endpoints show and change. */
export interface OpsParts {
  readonly queues: JobQueues;
  readonly redis: Redis;
  readonly provider: WorkerProvider;
  readonly state: SharedState;
  readonly leadership: Leadership;
  readonly loop: ControlLoop;
  readonly limits: Limits;
}

/** The token under which OpsParts are injected. */
export const OPS_PARTS = Symbol('ops parts');

/** POST /scale. */
class ScaleRequest {
  /** How many workers there should be; null leaves it to the queues again. */
  @ValidateIf((request: ScaleRequest) => request.workers !== null)
  @IsInt()
  @Min(MIN_WORKERS)
  workers!: number | null;
}

/** GET /decisions. */
class DecisionsQuery {
  @IsInt()
  @Min(1)
  @Max(DECISIONS_KEPT)
  limit = 50;
}

/** What operators see and change. Every autoscaler answers the same, whether it leads or not: all of it lies in Redis. */
@Controller()
@UseGuards(OpsTokenGuard)
export class OpsController {
  constructor(@Inject(OPS_PARTS) private readonly parts: OpsParts) {}

  /** How deep each queue is, and since when it has been idle. */
  @Get('queues')
  async listQueues() {
    const { queues, state } = this.parts;
    const [depths, marks] = await fromRedis(Promise.all([queues.depths(), state.marks()]));
    const now = Date.now();
    return {
      queues: depths.map((depth) => {
        const { idleSince } = markQueue(marks.get(depth.name), depth, now);
        return {
          ...depth,
          idleSince: idleSince === null ? null : new Date(idleSince).toISOString(),
          idleSeconds: idleSince === null ? 0 : Math.max(0, Math.round((now - idleSince) / 1000)),
        };
      }),
    };
  }

  /** Every worker: what its provider says of it, and its last heartbeat. */
  @Get('workers')
  async listWorkers() {
    const { provider, redis } = this.parts;
    const fleet = await fromRedis(listFleet(provider, redis));
    return {
      provider: provider.kind,
      workers: fleet.map(({ id, instance, worker }) => ({
        id,
        managed: instance !== null,
        state: instance?.stopping ? 'stopping' : !worker ? 'silent' : worker.draining ? 'draining' : 'ready',
        name: worker?.name ?? null,
        pid: worker?.pid ?? null,
        host: worker?.host ?? null,
        machine: worker?.machine ?? null,
        url: worker?.url ?? null,
        startedAt: new Date(instance?.startedAt ?? worker?.startedAt ?? 0).toISOString(),
        activeJobs: worker?.activeJobs ?? null,
        idleSeconds: worker ? Math.round(worker.idleMs / 1000) : null,
        drained: worker?.drained ?? false,
      })),
    };
  }

  /** What was decided lately, newest first, with reasons. */
  @Get('decisions')
  async listDecisions(@Query() query: Record<string, unknown>) {
    const given = query['limit'] === undefined ? {} : { limit: Number(query['limit']) };
    const { limit } = parse(DecisionsQuery, given);
    return { decisions: await fromRedis(this.parts.state.decisions(limit)) };
  }

  /** How many workers there are and should be, and the limits. */
  @Get('scale')
  async showScale() {
    const { provider, redis, state, leadership, limits } = this.parts;
    const [fleet, target] = await fromRedis(Promise.all([listFleet(provider, redis), state.target()]));
    return {
      provider: provider.kind,
      canAct: provider.canAct,
      autoscaler: { id: leadership.holder, leads: leadership.isHeld },
      workers: fleet.length,
      target,
      atLeast: floorOf({ target, limits }),
      atMost: limits.maxWorkers,
      scaleUpQueueDepth: limits.scaleUpQueueDepth,
      scaleDownIdleMinutes: limits.scaleDownIdleMs / 60_000,
    };
  }

  /** Asks for a number of workers, until `{"workers": null}` leaves it to the queues again. */
  @Post('scale')
  @HttpCode(200)
  async scale(@Body() body: unknown) {
    const { state, loop, limits } = this.parts;
    const { workers } = parse(ScaleRequest, body);
    if (workers !== null && workers > limits.maxWorkers) {
      throw apiError('VALIDATION_ERROR', `workers may be ${limits.maxWorkers} at most: raise MAX_WORKERS for more.`, {
        field: 'workers',
      });
    }
    await fromRedis(state.setTarget(workers));
    loop.kick();
    return this.showScale();
  }
}

function parse<Shape extends object>(shape: new () => Shape, input: unknown): Shape {
  const isObject = typeof input === 'object' && input !== null && !Array.isArray(input);
  const value = plainToInstance(shape, isObject ? input : {});
  const [fault] = validateSync(value, { whitelist: true, forbidNonWhitelisted: true, stopAtFirstError: true });
  if (!fault) return value;
  const [text] = Object.values(fault.constraints ?? { form: `${fault.property} is not understood` });
  throw apiError('VALIDATION_ERROR', `${text}.`, { field: fault.property });
}

/** Says honestly that it is Redis, or the provider, that does not answer. */
async function fromRedis<Result>(work: Promise<Result>): Promise<Result> {
  try {
    return await work;
  } catch (error) {
    if (isCodedError(error)) throw apiError('INTERNAL_ERROR', `The provider of workers failed: ${error.message}`);
    throw apiError('INTERNAL_ERROR', 'Redis does not answer at the moment; /health/ready tells when it is back.');
  }
}
