import type { TenantId } from '@atomo-cc/kernel';
import type { RecordedEvent } from '@atomo-cc/events';
import type { AppDatabase } from '@atomo-cc/platform/postgres';
import { append } from '../append.js';
import { Fence } from '../fence.js';
import { readEvents } from '../read.js';
import { subscribe } from '../subscription.js';

/** Who writes and who follows, against each other. */
export interface FenceTorture {
  /** For writers and those that follow: with fewer connections than there are of them, they also wait for each other. */
  readonly database: AppDatabase;
  /** For appends whose connections are killed. */
  readonly doomed: AppDatabase;
  /** Runs a statement with the rights of the database's owner. */
  readonly asOwner: <Row>(sql: string, parameters?: unknown[]) => Promise<Row[]>;
  /** Those that write and follow are divided among them. */
  readonly tenants: readonly TenantId[];
  readonly writers: number;
  /** Appends under way whose connections will be killed. */
  readonly victims: number;
  /** Readers that go by the mark; every second one shares its fence with more who look. */
  readonly readers: number;
  /** Subscriptions that are left now and then, and begun again behind their last event. */
  readonly subscriptions: number;
  /** Streams of each tenant; few, so that writers wait for each other. */
  readonly streams: number;
  /** Numbers from 0 to below 1 for the n-th of those that draw lots. */
  readonly lots: (n: number) => () => number;
  /** Asked before each append, with the number of those that this writer has made. */
  readonly isOver: (rounds: number) => boolean;
}

/** What became of it. The first five must be 0. */
export interface FenceTortureCounts {
  /** Committed or acknowledged events that someone who followed did not see, or that are not in the log. */
  lost: number;
  duplicated: number;
  /** Seen behind a later position, or behind a later version of the stream, or with a version left out. */
  inverted: number;
  /** Seen or logged, and yet rolled back. */
  ghosts: number;
  /** How often a mark was below one that was answered before. */
  marksBack: number;
  committed: number;
  rolledBack: number;
  killed: number;
  /** Positions drawn that no event has. */
  holes: number;
  /** The fewest different marks that a reader saw: one that saw all at the end would prove nothing. */
  marks: number;
  /** How often subscriptions were begun. */
  subscribed: number;
}

/** Share of a writer's appends that are rolled back, and that stay open for long. */
const ROLLED_BACK = 0.2;
const SLOW = 0.01;
const SLOW_SECONDS = 0.15;
/** Page of a reader that follows. */
const PAGE = 1_000;
/** What a connection that Postgres or we have ended fails with. */
const CUT = /terminat|not queryable|released|closed|ECONNRESET|EPIPE/i;
const METADATA = { actor: 'system:torture', correlationId: 'c', causationId: 'd' };

/** Everything one follower saw, in the order in which it did. */
interface Tail {
  readonly tenant: TenantId;
  readonly seen: [position: bigint, stream: string, version: number][];
  readonly marks: bigint[];
}

interface Written {
  readonly acknowledged: Set<bigint>;
  readonly rolledBack: Set<bigint>;
  rollbacks: number;
  kills: number;
}

/**
 * Tries to refute the fence: writers draw positions, wait, commit, roll back and are killed in every order, while others
 * follow the log by the settled mark alone. At the end what they saw is compared with what is in the log.
 */
export async function tortureFence(torture: FenceTorture): Promise<FenceTortureCounts> {
  const written: Written = { acknowledged: new Set(), rolledBack: new Set(), rollbacks: 0, kills: 0 };
  let isOver = false;
  const counted = { subscribed: 0 };
  const tenantOf = (n: number) => torture.tenants[n % torture.tenants.length]!;
  const many = <Result>(count: number, make: (n: number) => Promise<Result>) =>
    Promise.all(Array.from({ length: count }, (_, n) => make(n)));

  const readers = many(torture.readers, (n) => follow(torture, tenantOf(n), n % 2 === 0 ? 0 : 3, () => isOver));
  const ends: ((last: bigint) => void)[] = [];
  const subscribers = many(torture.subscriptions, (n) => {
    const last = new Promise<bigint>((resolve) => ends.push(resolve));
    return resubscribe(torture, tenantOf(n), torture.lots(1_000 + n), last, counted);
  });
  // A follower that fails is reported at the end; until then its rejection must not end the process.
  const following = Promise.allSettled([readers, subscribers]);
  try {
    await Promise.all([
      many(torture.writers, (n) => write(torture, tenantOf(n), torture.lots(n), written)),
      many(torture.victims, (n) => beKilled(torture, tenantOf(n), torture.lots(2_000 + n), written)),
    ]);
  } finally {
    isOver = true;
    const [last] = await torture.asOwner<{ position: string }>(
      'select coalesce(max(position), 0) as position from event_log',
    );
    for (const end of ends) end(BigInt(last!.position));
  }
  await following;
  return count(torture, [...(await readers), ...(await subscribers)], written, counted.subscribed);
}

/** Appends to one or two streams, with pauses before the position is drawn and before the end; some roll back. */
async function write(torture: FenceTorture, tenant: TenantId, lot: () => number, written: Written): Promise<void> {
  for (let round = 0; !torture.isOver(round); round += 1) {
    const streams = new Set([lot(), lot()].map((drawn) => `Thing-${Math.floor(drawn * torture.streams)}`));
    const [before, after, fate] = [lot() * 0.006, lot() * 0.012, lot()];
    const events = Array.from({ length: 1 + Math.floor(lot() * 3) }, (_, n) => thing(n));
    let positions: bigint[] = [];
    const isRolledBack = fate < ROLLED_BACK;
    await torture.database
      .transaction(tenant, async (tx) => {
        await tx.query('select pg_sleep($1)', [before]);
        const appends = [...streams].map((stream) => ({
          stream,
          expected: 'any' as const,
          events,
          metadata: METADATA,
        }));
        const result = await append(tx, tenant, appends);
        positions = result.ok ? result.events.map(({ position }) => position) : [];
        await tx.query('select pg_sleep($1)', [fate > 1 - SLOW ? SLOW_SECONDS : after]);
        if (isRolledBack) throw new RolledBack();
      })
      .catch((error: unknown) => {
        if (!(error instanceof RolledBack)) throw error;
      });
    if (isRolledBack) written.rollbacks += 1;
    const kept = isRolledBack ? written.rolledBack : written.acknowledged;
    for (const position of positions) kept.add(position);
  }
}

class RolledBack extends Error {}

function thing(n: number) {
  return { type: 'Thing.changed', schemaVersion: 1, data: { n } };
}

/**
 * Appends, and is killed: half of them while they wait behind the append, which must leave nothing, and half on their way
 * to the commit, which may or may not be reached.
 */
async function beKilled(torture: FenceTorture, tenant: TenantId, lot: () => number, written: Written): Promise<void> {
  for (let round = 0; !torture.isOver(round * KILL_EVERY); round += 1) {
    const isWaiting = round % 2 === 0;
    const stream = `Thing-${Math.floor(lot() * torture.streams)}`;
    let positions: bigint[] = [];
    let killing: Promise<unknown> = Promise.resolve();
    const outcome = await torture.doomed
      .transaction(tenant, async (tx) => {
        const [self] = await tx.query<{ pid: number }>('select pg_backend_pid() as pid');
        const result = await append(tx, tenant, [
          { stream, expected: 'any', events: [thing(round)], metadata: METADATA },
        ]);
        positions = result.ok ? result.events.map(({ position }) => position) : [];
        killing = torture.asOwner('select pg_terminate_backend($1)', [self!.pid]);
        if (isWaiting) await tx.query('select pg_sleep(60)');
        else await tx.query('select pg_sleep($1)', [lot() * 0.002]);
      })
      .then(
        () => 'acknowledged' as const,
        (error: unknown) => {
          if (!CUT.test(String((error as Error).message))) throw error;
          return 'cut' as const;
        },
      );
    await killing;
    written.kills += 1;
    const kept = outcome === 'acknowledged' ? written.acknowledged : isWaiting ? written.rolledBack : new Set<bigint>();
    for (const position of positions) kept.add(position);
  }
}

/** A victim makes a new connection each time, which takes as long as some appends. */
const KILL_EVERY = 10;

/** Follows the log by the mark alone until all have written, then to its end. `lookers` share its fence, as requests do. */
async function follow(torture: FenceTorture, tenant: TenantId, lookers: number, isOver: () => boolean): Promise<Tail> {
  const { database } = torture;
  const fence = new Fence();
  const tail: Tail = { tenant, seen: [], marks: [] };
  const look = () =>
    database.transaction(tenant, async (tx) => {
      const mark = await fence.advance(tx);
      // In the order of the answers: looks overtake each other on their way here.
      tail.marks.push(mark);
      return mark;
    });
  const looking = Promise.all(
    Array.from({ length: lookers }, async () => {
      while (!isOver()) await look();
    }),
  );
  for (let after = 0n, isLast = false; ;) {
    isLast = isOver();
    const settled = await look();
    const events = await database.transaction(tenant, (tx) => readEvents(tx, tenant, { after, settled, limit: PAGE }));
    see(tail, events);
    after = settled > after && events.length < PAGE ? settled : (events.at(-1)?.position ?? after);
    if (isLast && events.length < PAGE) break;
  }
  await looking;
  return tail;
}

/** Follows by subscriptions, each left after a few pages, until the last event of the log is behind it. */
async function resubscribe(
  torture: FenceTorture,
  tenant: TenantId,
  lot: () => number,
  end: Promise<bigint>,
  counted: { subscribed: number },
): Promise<Tail> {
  const tail: Tail = { tenant, seen: [], marks: [] };
  const fence = new Fence();
  const aborter = new AbortController();
  const { database } = torture;
  void end.then(async (last) => {
    // The tenant's own last event ends it; others have their own, or none at all.
    const [own] = await torture.asOwner<{ position: string }>(
      'select coalesce(max(position), 0) as position from event_log where tenant_id = $1 and position <= $2',
      [tenant, String(last)],
    );
    const until = BigInt(own!.position);
    while (!aborter.signal.aborted && (tail.seen.at(-1)?.[0] ?? 0n) < until && Date.now() < patience()) {
      await new Promise((resolve) => setTimeout(resolve, END_LOOK_MS));
    }
    aborter.abort();
  });
  let began: number | undefined;
  const patience = () => (began ??= Date.now()) + END_LIMIT_MS;
  while (!aborter.signal.aborted) {
    counted.subscribed += 1;
    let pages = 1 + Math.floor(lot() * 10);
    const after = tail.seen.at(-1)?.[0] ?? 0n;
    for await (const page of subscribe({ database, fence, tenant, after, signal: aborter.signal })) {
      see(tail, page);
      pages -= 1;
      if (pages === 0) break;
    }
  }
  return tail;
}

/** How often, and for how long after the last append, it is looked whether a subscription has reached the end. */
const END_LOOK_MS = 20;
const END_LIMIT_MS = 15_000;

function see(tail: Tail, events: readonly RecordedEvent[]): void {
  for (const { position, stream, streamVersion } of events) tail.seen.push([position, stream, streamVersion]);
}

async function count(
  torture: FenceTorture,
  tails: readonly Tail[],
  written: Written,
  subscribed: number,
): Promise<FenceTortureCounts> {
  const rows = await torture.asOwner<{ position: string; tenant_id: TenantId }>(
    'select position, tenant_id from event_log order by position',
  );
  const [drawn] = await torture.asOwner<{ last_value: string }>('select last_value from event_log_position');
  const logged = new Map(rows.map(({ position, tenant_id }) => [BigInt(position), tenant_id]));
  const counts: FenceTortureCounts = {
    lost: [...written.acknowledged].filter((position) => !logged.has(position)).length,
    duplicated: 0,
    inverted: 0,
    ghosts: [...written.rolledBack].filter((position) => logged.has(position)).length,
    marksBack: 0,
    committed: rows.length,
    rolledBack: written.rollbacks,
    killed: written.kills,
    holes: Number(drawn!.last_value) - rows.length,
    marks: Infinity,
    subscribed,
  };
  for (const { tenant, seen, marks } of tails) {
    const positions = new Set(seen.map(([position]) => position));
    counts.duplicated += seen.length - positions.size;
    counts.lost += rows.filter((row) => row.tenant_id === tenant && !positions.has(BigInt(row.position))).length;
    counts.ghosts += [...positions].filter((position) => logged.get(position) !== tenant).length;
    const heads = new Map<string, number>();
    let last = 0n;
    for (const [position, stream, version] of seen) {
      if (position < last || version !== (heads.get(stream) ?? 0) + 1) counts.inverted += 1;
      last = position;
      heads.set(stream, version);
    }
    counts.marksBack += marks.filter((mark, at) => at > 0 && mark < marks[at - 1]!).length;
    if (marks.length > 0) counts.marks = Math.min(counts.marks, new Set(marks).size);
  }
  return counts;
}
