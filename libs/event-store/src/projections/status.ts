import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { isUnderWay, readBuildFacts, readBuilds, type Build, type BuildFacts } from './builds.js';
import { rateOf, type Shard, type ShardState } from './checkpoints.js';

/** How one shard of a build stands, as far as a request may see it. */
export interface ShardFacts extends Shard {
  readonly state: ShardState;
  readonly position: bigint;
  /** Positions drawn behind the checkpoint: at least the number of events that wait, 0 when all is done. */
  readonly lagEvents: number;
  /**
   * The age of the oldest event behind the checkpoint that the asker may see, in milliseconds by the database's clock; 0 when
   * there is none.
   */
  readonly lagMs: number;
  readonly eventsTotal: number;
  /** Attempts at a batch that failed. */
  readonly errorsTotal: number;
  /** Over the last ten seconds or so. */
  readonly eventsPerSecond: number;
  readonly errorsPerSecond: number;
  /** A request sees those of its tenant. */
  readonly openDeadLetters: number;
  readonly updatedAt: Date;
}

/** How one shard of a build stands. */
export interface ShardStatus extends ShardFacts {
  /** Of the failure that it has not got over yet. */
  readonly lastError: string | null;
}

/** How far a build is that is under way. */
export interface BuildProgress {
  /** Applied since it began. */
  readonly eventsDone: number;
  /** In the log when it began; null while they are being counted, and when a build goes on that was live before. */
  readonly eventsToDo: number | null;
  /** Over its whole time. */
  readonly eventsPerSecond: number;
  /** Until it has caught up, in milliseconds, by the positions it has covered; null while it cannot be told. */
  readonly etaMs: number | null;
}

/** How a build stands, by its shards. */
interface Standing<OfShard> {
  /** Null unless it is under way. */
  readonly progress: BuildProgress | null;
  /** Of its slowest shard; 0 for a build that is not fed from the log (see ShardStatus). */
  readonly lagEvents: number;
  readonly lagMs: number;
  readonly eventsPerSecond: number;
  readonly errorsPerSecond: number;
  readonly openDeadLetters: number;
  /** None when it is over, or when the commands write it. */
  readonly shards: readonly OfShard[];
}

/** A build with how it stands. */
export type BuildStatus = Omit<Build, 'shards'> & Standing<ShardStatus>;
/** The same, as far as a request may see it. */
export type VisibleBuild = Omit<BuildFacts, 'shards'> & Standing<ShardFacts>;

/** A projection with its builds, the newest first. */
export interface ProjectionStatus<OfBuild = BuildStatus> {
  readonly projection: string;
  readonly live: OfBuild | null;
  readonly builds: readonly OfBuild[];
}

/** Builds that are told of: the newest ones, as each that is over leaves its row. */
const MAX_BUILDS_TOLD = 20;

/** How all projections stand that have ever run here, by name, with all that was said about them: for operators. */
export function projectionStatus(database: SystemDatabase): Promise<ProjectionStatus[]> {
  return database.transaction(async (tx) => byProjection(await readBuildStatus(tx, null)));
}

/**
 * How all projections stand that have ever run here, by name, as far as the tenant of a request may see it: not the errors,
 * nor who asked for a build and why, nor builds of another tenant alone.
 */
export async function visibleProjections(tx: Tx): Promise<ProjectionStatus<VisibleBuild>[]> {
  return byProjection(await withStanding(tx, await readBuildFacts(tx), await readShardFacts(tx)));
}

function byProjection<OfBuild extends VisibleBuild>(statuses: readonly OfBuild[]): ProjectionStatus<OfBuild>[] {
  return [...Map.groupBy(statuses, ({ projection }) => projection)].map(([projection, builds]) => ({
    projection,
    live: builds.find(({ state }) => state === 'live') ?? null,
    builds: builds.toReversed().slice(0, MAX_BUILDS_TOLD),
  }));
}

/** How the builds of some projections, or of all, stand, by name and number. Needs the system role. */
export async function readBuildStatus(tx: Tx, projections: readonly string[] | null): Promise<BuildStatus[]> {
  return withStanding(tx, await readBuilds(tx, projections), await readShards(tx, projections));
}

async function withStanding<OfBuild extends BuildFacts, OfShard extends ShardFacts>(
  tx: Tx,
  builds: readonly OfBuild[],
  shards: readonly OfShard[],
): Promise<(Omit<OfBuild, 'shards'> & Standing<OfShard>)[]> {
  const byBuild = Map.groupBy(shards, ({ projection, build }) => `${projection}/${build}`);
  const [clock] = await tx.query<{ now: Date }>('select clock_timestamp() as now');
  return builds.map((build) => {
    const own = byBuild.get(`${build.projection}/${build.build}`) ?? [];
    const sum = (figure: (shard: OfShard) => number) => own.reduce((total, shard) => total + figure(shard), 0);
    return {
      ...build,
      progress: progressOf(build, own, clock!.now),
      lagEvents: Math.max(0, ...own.map(({ lagEvents }) => lagEvents)),
      lagMs: Math.max(0, ...own.map(({ lagMs }) => lagMs)),
      eventsPerSecond: sum(({ eventsPerSecond }) => eventsPerSecond),
      errorsPerSecond: sum(({ errorsPerSecond }) => errorsPerSecond),
      openDeadLetters: sum(({ openDeadLetters }) => openDeadLetters),
      shards: own,
    };
  });
}

function progressOf(
  build: Pick<Build, 'state' | 'startedAt' | 'from' | 'eventsBefore' | 'eventsToDo'>,
  shards: readonly ShardFacts[],
  now: Date,
): BuildProgress | null {
  if (!isUnderWay(build)) return null;
  const eventsDone = shards.reduce((total, { eventsTotal }) => total + eventsTotal, 0) - build.eventsBefore;
  const ms = build.startedAt ? Math.max(1, now.getTime() - build.startedAt.getTime()) : 0;
  const covered = shards.reduce((total, { position }) => total + Number(position - build.from), 0);
  const left = shards.reduce((total, { lagEvents }) => total + lagEvents, 0);
  return {
    eventsDone,
    eventsToDo: build.eventsToDo === null ? null : Math.max(build.eventsToDo, eventsDone),
    eventsPerSecond: ms > 0 ? (eventsDone * 1000) / ms : 0,
    etaMs: build.state === 'ready' ? 0 : covered > 0 ? Math.round((ms * left) / covered) : null,
  };
}

/** How the shards of builds stand that are fed from the log, by name, build and shard. Needs the system role. */
export function readShards(tx: Tx, projections: readonly string[] | null): Promise<ShardStatus[]> {
  return selectShards<{ lastError: string | null }>(tx, projections, ', c.last_error as "lastError"');
}

/** The same of all builds, as far as a request may see it. */
function readShardFacts(tx: Tx): Promise<ShardFacts[]> {
  return selectShards(tx, null, '');
}

interface ShardNumbers {
  readonly position: string;
  readonly eventsTotal: string;
  readonly errorsTotal: string;
}

/** @param more SQL of further columns, from the checkpoint `c` */
async function selectShards<More>(
  tx: Tx,
  projections: readonly string[] | null,
  more: string,
): Promise<(ShardFacts & More)[]> {
  const rows = await tx.query<
    Omit<ShardFacts, 'lagEvents' | keyof ShardNumbers> & ShardNumbers & { last: string } & More
  >(
    `select c.projection, c.build, c.shard, c.state, c.position, s.last,
            coalesce((select greatest(0, extract(epoch from clock_timestamp() - e.recorded_at) * 1000)::float8
                      from event_log e where e.position > c.position order by e.position limit 1), 0) as "lagMs",
            c.events_total as "eventsTotal", c.errors_total as "errorsTotal",
            ${rateOf('events')} as "eventsPerSecond", ${rateOf('errors')} as "errorsPerSecond",
            (select count(*)::int from projection_dead_letters d
             where d.projection = c.projection and d.build = c.build and d.shard = c.shard and d.state = 'open')
              as "openDeadLetters",
            c.updated_at as "updatedAt"${more}
     from projection_checkpoints c
     cross join (select case when is_called then last_value else 0 end as last from event_log_position) s
     join projection_builds b using (projection, build)
     where (b.state in ('building', 'ready') or (b.state = 'live' and b.mode = 'async'))
       and ($1::text[] is null or c.projection = any($1))
     order by c.projection, c.build, c.shard`,
    [projections],
  );
  return rows.map(({ last, position, eventsTotal, errorsTotal, ...row }) => ({
    ...(row as Omit<ShardFacts, 'lagEvents' | keyof ShardNumbers> & More),
    position: BigInt(position),
    lagEvents: Math.max(0, Number(BigInt(last) - BigInt(position))),
    eventsTotal: Number(eventsTotal),
    errorsTotal: Number(errorsTotal),
  }));
}
