import { CodedError, type TenantId } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { columnText, lockCheckpoints } from './checkpoints.js';
import { sideTable, type Projection, type ProjectionTarget } from './projection.js';

/** Why a build is not made, or does not take the live one's place. */
export const BUILD_ERRORS = {
  PROJECTION_BUILD_UNDER_WAY: 'A build of this projection is under way. Wait for it, or cancel it.',
  PROJECTION_BUILD_NOT_UNDER_WAY: 'No build of this projection is under way: it is live already, or it has ended.',
  PROJECTION_BUILD_ILLEGAL_MOVE:
    'The build is in a state from which this is not possible, such as retiring a failed one.',
  PROJECTION_BUILD_HAS_DEAD_LETTERS:
    'The build has passed over events. Retry or skip its dead letters, or say that it may go live with them.',
  PROJECTION_NOTHING_RETIRED: 'No earlier build is kept to which the projection could go back.',
  PROJECTION_TABLE_TAKEN:
    'A table is there under the name that one of the new build was to get. Look what it is, drop or rename it, then ask again.',
  PROJECTION_TABLE_UNSUITABLE:
    'A table of the projection has no tenant_id, or no primary key by which its rows can be told apart, so a single tenant cannot be built anew.',
} as const;

/** The states of a build. */
export const BUILD_STATES = [
  'requested',
  'building',
  'ready',
  'live',
  'merged',
  'retired',
  'cancelled',
  'failed',
  'dropped',
] as const;
/**
 * `ready` has caught up with the live build and goes on following it; `merged` was of one tenant, whose rows the live tables
 * have taken over; `retired` was live and is kept to go back to; the last three are over and lose their tables.
 */
export type BuildState = (typeof BUILD_STATES)[number];
/** What can happen to a build. */
export type BuildMove =
  'begin' | 'catchUp' | 'switch' | 'merge' | 'retire' | 'revive' | 'rest' | 'cancel' | 'fail' | 'drop';

/**
 * The whole state machine; docs/states.md draws it, and a test holds the two equal. The first build of a projection begins
 * as live: there is nothing beside which it could be built.
 */
export const BUILD_MOVES: Readonly<Record<BuildMove, { from: readonly BuildState[]; to: BuildState }>> = {
  begin: { from: ['requested'], to: 'building' },
  catchUp: { from: ['building'], to: 'ready' },
  switch: { from: ['ready'], to: 'live' },
  merge: { from: ['ready'], to: 'merged' },
  retire: { from: ['live'], to: 'retired' },
  revive: { from: ['retired'], to: 'building' },
  rest: { from: ['building', 'ready'], to: 'retired' },
  cancel: { from: ['requested', 'building', 'ready'], to: 'cancelled' },
  fail: { from: ['requested'], to: 'failed' },
  drop: { from: ['retired'], to: 'dropped' },
};

/** Of these a projection has at most one. */
const UNDER_WAY: readonly BuildState[] = ['requested', 'building', 'ready'];
/** Those whose tables nobody needs any more. */
export const OVER: readonly BuildState[] = ['merged', 'cancelled', 'failed', 'dropped'];
/** Characters of the reason, and of the name, of who asks. */
const MAX_REASON_CHARS = 1_000;

/** What a request may see of a build, too. */
export interface BuildFacts {
  readonly projection: string;
  readonly build: number;
  /** That of the code by which it is made. */
  readonly version: number;
  /** Whose rows alone it has; null for all tenants. */
  readonly tenant: TenantId | null;
  readonly mode: Projection['mode'];
  readonly shards: number;
  readonly state: BuildState;
  readonly holdSwitch: boolean;
  readonly allowDeadLetters: boolean;
  /** The positions between which it was, or is, built. */
  readonly from: bigint;
  readonly to: bigint;
  readonly eventsBefore: number;
  readonly eventsToDo: number | null;
  readonly requestedAt: Date;
  readonly startedAt: Date | null;
  readonly readyAt: Date | null;
  readonly liveAt: Date | null;
  readonly endedAt: Date | null;
}

/** One build of a projection, as its row says. */
export interface Build extends BuildFacts {
  /** Base names. */
  readonly tables: readonly string[];
  readonly hasTables: boolean;
  /** Where the shards of the live build stood that it replaced. */
  readonly gate: readonly bigint[] | null;
  readonly error: string | null;
  readonly requestedBy: string;
  readonly reason: string;
}

/** Whether it is being made, or waits for it. */
export const isUnderWay = (build: Pick<Build, 'state'>): boolean => UNDER_WAY.includes(build.state);
/** Whether the runner applies the log to it: the commands write what is inline and live. */
export const isFed = ({ state, mode }: Build): boolean =>
  state === 'building' || state === 'ready' || (state === 'live' && mode === 'async');

/** Numbers of 64 bits, as the driver gives them. */
interface RowNumbers {
  from: string;
  to: string;
  eventsBefore: string;
  eventsToDo: string | null;
}
type FactsRow = Omit<BuildFacts, keyof RowNumbers> & RowNumbers;
type BuildRow = Omit<Build, keyof RowNumbers | 'gate'> & RowNumbers & { gate: string[] | null };

/** Those that the application's role may read (migration ProjectionProgress). */
const FACTS = `projection, build, version, tenant_id as tenant, mode, shards, state, hold_switch as "holdSwitch",
  allow_dead_letters as "allowDeadLetters", from_position as "from", to_position as "to", events_before as "eventsBefore",
  events_to_do as "eventsToDo", requested_at as "requestedAt", started_at as "startedAt", ready_at as "readyAt",
  live_at as "liveAt", ended_at as "endedAt"`;
const COLUMNS = `${FACTS}, tables, has_tables as "hasTables", gate, error, requested_by as "requestedBy", reason`;

function withNumbers<Row extends RowNumbers>({ from, to, eventsBefore, eventsToDo, ...row }: Row) {
  return {
    ...row,
    from: BigInt(from),
    to: BigInt(to),
    eventsBefore: Number(eventsBefore),
    eventsToDo: eventsToDo === null ? null : Number(eventsToDo),
  };
}

function toBuild({ gate, ...row }: BuildRow): Build {
  return { ...withNumbers(row), gate: gate && gate.map(BigInt) };
}

/** What is known of all builds that a request may see: those of all tenants, and its own tenant's. By name and number. */
export async function readBuildFacts(tx: Tx): Promise<BuildFacts[]> {
  const rows = await tx.query<FactsRow>(`select ${FACTS} from projection_builds order by projection, build`);
  return rows.map(withNumbers);
}

/** The builds of some projections, or of all, by name and number. Needs the system role. */
export async function readBuilds(tx: Tx, projections: readonly string[] | null): Promise<Build[]> {
  const rows = await tx.query<BuildRow>(
    `select ${COLUMNS} from projection_builds where $1::text[] is null or projection = any($1) order by projection, build`,
    [projections],
  );
  return rows.map(toBuild);
}

/**
 * The builds of a projection, locked to the end of the transaction. Whoever changes a build's state takes this lock, then
 * those of its checkpoints: in this order, so that two who do wait for each other.
 */
export async function lockBuilds(tx: Tx, projection: string): Promise<Build[]> {
  const rows = await tx.query<BuildRow>(
    `select ${COLUMNS} from projection_builds where projection = $1 order by build for update`,
    [projection],
  );
  return rows.map(toBuild);
}

/** One build, as it is now. Under the lock of a checkpoint of it its state and tables' names stay so. */
export async function readBuild(tx: Tx, projection: string, build: number): Promise<Build | undefined> {
  const [row] = await tx.prepared<BuildRow>(
    `select ${COLUMNS} from projection_builds where projection = $1 and build = $2`,
    [projection, build],
  );
  return row && toBuild(row);
}

/** @throws CodedError PROJECTION_NOT_FOUND for a build that is not there; the live one unless a number is given */
export async function findBuild(tx: Tx, { projection, build }: BuildOf): Promise<Build> {
  const builds = await readBuilds(tx, [projection]);
  const found = builds.find((each) => (build === undefined ? each.state === 'live' : each.build === build));
  if (!found) throw notFound({ projection, build });
  return found;
}

/** Which build of a projection is meant. */
export interface BuildOf {
  readonly projection: string;
  /** Unless given, what the function that is asked says. */
  readonly build?: number | undefined;
}

/** The error for a projection, or build, that there is not. */
export function notFound({ projection, build }: BuildOf): CodedError {
  const what = build === undefined ? `projection ${projection}` : `build ${build} of projection ${projection}`;
  return new CodedError('PROJECTION_NOT_FOUND', `No ${what} has ever run here.`);
}

/** Moves a build whose row is locked, and sets more of its columns. @throws CodedError PROJECTION_BUILD_ILLEGAL_MOVE */
export async function moveBuild(
  tx: Tx,
  build: Pick<Build, 'projection' | 'build'>,
  move: BuildMove,
  set: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const { from, to } = BUILD_MOVES[move];
  const columns = Object.entries({ error: null, ...set });
  const time = { building: 'started_at', ready: 'ready_at', live: 'live_at' }[to as string] ?? 'ended_at';
  const moved = await tx.execute(
    `update projection_builds set state = $3, ${columns.map(([column], n) => `${column} = $${n + 5}`).join(', ')},
       ${time} = clock_timestamp()
     where projection = $1 and build = $2 and state = any($4)`,
    [build.projection, build.build, to, from, ...columns.map(([, value]) => value)],
  );
  if (moved === 0) {
    throw new CodedError(
      'PROJECTION_BUILD_ILLEGAL_MOVE',
      `Build ${build.build} of ${build.projection} cannot ${move}: only a ${from.join(' or ')} one can.`,
    );
  }
}

/** Says at a build that is not live why it does not go on. */
export async function noteBuildError(tx: Tx, build: Build, error: string): Promise<void> {
  await tx.execute(`update projection_builds set error = $3 where projection = $1 and build = $2 and state <> 'live'`, [
    build.projection,
    build.build,
    error,
  ]);
}

/** What a build is asked for with. */
export interface BuildRequest {
  readonly projection: string;
  /** Builds this tenant's rows anew and takes them over into the live tables; the whole projection unless given. */
  readonly tenant?: TenantId | undefined;
  /** Of the code that shall build; the live build's unless given. */
  readonly version?: number | undefined;
  /** Waits for `switchBuild` when it has caught up, instead of going live by itself. */
  readonly holdSwitch?: boolean | undefined;
  /** Goes live even though it passed over events. */
  readonly allowDeadLetters?: boolean | undefined;
  /** Who asks, and why; 1 to 1,000 characters each. */
  readonly by: string;
  readonly reason: string;
}

/**
 * Asks for a build; a runner that has the code takes it up at its next beat. Answers its number.
 * @throws CodedError PROJECTION_NOT_FOUND, PROJECTION_BUILD_UNDER_WAY; RangeError for a request that does not say why
 */
export function requestBuild(database: SystemDatabase, request: BuildRequest): Promise<number> {
  return database.transaction(async (tx) => {
    const builds = await lockBuilds(tx, request.projection);
    return insertRequest(tx, builds, request);
  });
}

/** Writes down a request beside the builds that are there, which are locked. @throws as requestBuild */
export async function insertRequest(
  tx: Tx,
  builds: readonly Build[],
  request: BuildRequest & { readonly shards?: number; readonly tables?: readonly string[] },
): Promise<number> {
  const live = builds.find(({ state }) => state === 'live');
  if (!live) throw notFound(request);
  const other = builds.find(isUnderWay);
  if (other) {
    throw new CodedError(
      'PROJECTION_BUILD_UNDER_WAY',
      `Build ${other.build} of ${request.projection} is ${other.state}.`,
      { build: other.build },
    );
  }
  const build = builds.at(-1)!.build + 1;
  await tx.execute(
    `insert into projection_builds (projection, build, version, tenant_id, mode, shards, tables, state, hold_switch,
       allow_dead_letters, requested_by, reason)
     values ($1, $2, $3, $4, $5, $6, $7, 'requested', $8, $9, $10, $11)`,
    [
      request.projection,
      build,
      request.version ?? live.version,
      request.tenant ?? null,
      live.mode,
      request.shards ?? live.shards,
      request.tables ?? live.tables,
      request.holdSwitch ?? false,
      request.allowDeadLetters ?? false,
      said(request.by),
      said(request.reason),
    ],
  );
  return build;
}

/** Who asks for something about a projection, and why. */
export interface BuildOrder {
  readonly projection: string;
  readonly by: string;
  readonly reason: string;
}

/**
 * Calls off the build that is under way, at any moment before it goes live. Once it answers no batch of it is under way and
 * none begins; its tables, checkpoints and letters go with the runner's next beat. A build to which the projection was
 * going back is kept, as before.
 * @throws CodedError PROJECTION_BUILD_NOT_UNDER_WAY; RangeError for an order that does not say why
 */
export function cancelBuild(database: SystemDatabase, order: BuildOrder): Promise<void> {
  return database.transaction(async (tx) => {
    const build = underWay(await lockBuilds(tx, order.projection), order.projection);
    await callOff(tx, build, `${said(order.by)}: ${said(order.reason)}`);
  });
}

/** Calls off a build whose row is locked. */
export async function callOff(tx: Tx, build: Build, why: string): Promise<void> {
  await lockCheckpoints(tx, build.projection, [build.build]);
  await moveBuild(tx, build, build.liveAt ? 'rest' : 'cancel', { error: columnText(why, MAX_REASON_CHARS) });
}

/**
 * Lets the build that is under way go live as soon as it has caught up, although it was to be held.
 * @throws CodedError PROJECTION_BUILD_NOT_UNDER_WAY, PROJECTION_BUILD_HAS_DEAD_LETTERS (unless `allowDeadLetters`)
 */
export function switchBuild(
  database: SystemDatabase,
  order: { readonly projection: string; readonly allowDeadLetters?: boolean },
): Promise<void> {
  return database.transaction(async (tx) => {
    const build = underWay(await lockBuilds(tx, order.projection), order.projection);
    const isAllowed = order.allowDeadLetters ?? build.allowDeadLetters;
    if (!isAllowed) await refuseLetters(tx, build);
    await tx.execute(
      `update projection_builds set hold_switch = false, allow_dead_letters = $3, error = null
       where projection = $1 and build = $2`,
      [build.projection, build.build, isAllowed],
    );
  });
}

/** @throws CodedError PROJECTION_BUILD_HAS_DEAD_LETTERS */
export async function refuseLetters(tx: Tx, { projection, build }: Build): Promise<void> {
  const [row] = await tx.query<{ letters: number }>(
    `select count(*)::int as letters from projection_dead_letters where projection = $1 and build = $2 and state = 'open'`,
    [projection, build],
  );
  if (row!.letters > 0) {
    throw new CodedError(
      'PROJECTION_BUILD_HAS_DEAD_LETTERS',
      `Build ${build} of ${projection} has ${row!.letters} open dead letters.`,
      { letters: row!.letters },
    );
  }
}

/**
 * Goes back to the build that was live before: it is fed with what it missed, by a runner that has its version, and then
 * takes the live one's place. Answers its number.
 * @throws CodedError PROJECTION_NOTHING_RETIRED, PROJECTION_BUILD_UNDER_WAY; RangeError for an order that does not say why
 */
export function rollbackProjection(
  database: SystemDatabase,
  order: BuildOrder & { readonly holdSwitch?: boolean },
): Promise<number> {
  return database.transaction(async (tx) => {
    const builds = await lockBuilds(tx, order.projection);
    const other = builds.find(isUnderWay);
    if (other) {
      const words = `Build ${other.build} of ${order.projection} is ${other.state}.`;
      throw new CodedError('PROJECTION_BUILD_UNDER_WAY', words, { build: other.build });
    }
    const retired = builds.findLast(({ state }) => state === 'retired');
    if (!retired) throw new CodedError('PROJECTION_NOTHING_RETIRED', `No build of ${order.projection} is kept.`);
    const [at] = await tx.query<{ from: string; to: string; events: string }>(
      `select min(position) as "from", sum(events_total) as events,
              (select case when is_called then last_value else 0 end from event_log_position) as "to"
       from projection_checkpoints where projection = $1 and build = $2`,
      [retired.projection, retired.build],
    );
    await moveBuild(tx, retired, 'revive', {
      requested_by: said(order.by),
      reason: said(order.reason),
      hold_switch: order.holdSwitch ?? false,
      // It was live with them.
      allow_dead_letters: true,
      from_position: at!.from,
      to_position: at!.to,
      events_before: at!.events,
      events_to_do: null,
      ready_at: null,
      ended_at: null,
    });
    return retired.build;
  });
}

/** What a table of a build is called now. */
export function physicalTable({ state, build }: Pick<Build, 'state' | 'build'>, base: string): string {
  return state === 'live' ? base : sideTable(base, build);
}

/** How a build is seen by what is applied to it. */
export function targetOf(build: Build, gated: ReadonlySet<bigint>, more: { readonly mayAct?: boolean } = {}) {
  const isLive = build.state === 'live';
  const acts = more.mayAct ?? isLive;
  const target: ProjectionTarget = {
    build: build.build,
    isLive,
    table: (base) => {
      if (!build.tables.includes(base)) throw new TypeError(`projection ${build.projection} lists no table "${base}"`);
      return physicalTable(build, base);
    },
    mayAct: ({ position }) => acts && !gated.has(position),
  };
  return target;
}

function underWay(builds: readonly Build[], projection: string): Build {
  const build = builds.find(isUnderWay);
  if (!build) throw new CodedError('PROJECTION_BUILD_NOT_UNDER_WAY', `No build of ${projection} is under way.`);
  return build;
}

function said(words: string): string {
  const trimmed = words.trim();
  if (trimmed.length === 0 || trimmed.length > MAX_REASON_CHARS) {
    throw new RangeError(`who asks and why have 1 to ${MAX_REASON_CHARS} characters each`);
  }
  return trimmed;
}
