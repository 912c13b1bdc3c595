import { CodedError, sleep } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import type { Fence } from '../fence.js';
import { lockBuilds, moveBuild, refuseLetters, type Build } from './builds.js';
import { lockCheckpoints, type Checkpoint } from './checkpoints.js';
import { sideTable, type ProjectionCode, type ProjectionTable } from './projection.js';
import { BEFORE_READERS_WAIT, feed, lastDrawn, setLimits, type Limits } from './switch.js';

/**
 * While rows are replaced. A row that a command holds is waited for less than the second after which Postgres would end one
 * of the two; a large tenant's rows are one statement.
 */
const WHILE_ROWS_CHANGE: Limits = { lockMs: 500, statementMs: 600_000 };
/** How long it waits for the settled mark, in which the appends end that were open when it began; else it comes again. */
const SETTLE_MS = 2_000;
/** Between looks at the mark. */
const SETTLE_LOOK_MS = 20;

/** What a takeover needs of its runner. */
export interface TakeoverWork {
  readonly database: SystemDatabase;
  readonly fence: Fence;
  readonly code: ProjectionCode;
}

/**
 * Takes a tenant's rows over from a build that is ready into the live tables, in one transaction; false when it is not ready
 * any more, or open appends hold up the mark. Readers see the rows of before or those of after. Other tenants' rows are
 * neither touched nor locked; an async projection stands still meanwhile, for all tenants, because its checkpoints are locked.
 *
 * **Async**: the checkpoints of both builds are locked, and the build is brought shard by shard exactly to where the live one
 * stands; its rows are then what the live ones ought to be, and replace them.
 *
 * **Inline**: commands write the live rows meanwhile, so rows are replaced one by one and by version: a live row that is newer
 * stays. Which live rows are unknown to the log, and which rows are missing, cannot be seen from the newest state alone,
 * as a row may just have come. So the build is fed up to the mark, they are listed, and it is fed up to W, the last position
 * drawn by then, once the mark is there. The event of a live row that was listed was visible when the list was made, and so
 * at or below W: a row that the build still does not know then is of no event. A row that the build knew and the live table
 * did not was lost: its event was settled, so the command that wrote it had ended before. What came later is in the live
 * table by its own command.
 */
export function takeOver(work: TakeoverWork, name: string, number: number): Promise<boolean> {
  return work.database.transaction(async (tx) => {
    await setLimits(tx, BEFORE_READERS_WAIT);
    const builds = await lockBuilds(tx, name);
    const build = builds.find((each) => each.build === number);
    const live = builds.find(({ state }) => state === 'live');
    if (!build?.tenant || !live || build.state !== 'ready' || build.holdSwitch) return false;
    // Not those of an inline live build: it is not fed.
    const ofLive = build.mode === 'async' ? await lockCheckpoints(tx, name, [live.build]) : [];
    const ofBuild = await lockCheckpoints(tx, name, [number]);
    if (ofBuild.some(({ state }) => state !== 'running')) return false;
    if (!build.allowDeadLetters) await refuseLetters(tx, build);
    const tables = await Promise.all(work.code.projection.tables.map((table) => shapeOf(tx, table, build)));
    if (build.mode === 'async') {
      for (const checkpoint of ofBuild) {
        await feed(tx, work.code, { build, checkpoint, upTo: ofLive[checkpoint.shard]!.position });
      }
      await setLimits(tx, WHILE_ROWS_CHANGE);
      for (const table of tables) await replaceAll(tx, table, build);
    } else {
      const reached = await feedAll(tx, work, build, ofBuild, await work.fence.advance(tx));
      const rows = tables.filter(({ ownedBy }) => !ownedBy);
      for (const table of rows) await listStrangers(tx, table, build);
      const upTo = await settle(tx, work.fence);
      if (upTo === null) return false;
      await feedAll(tx, work, build, reached, upTo);
      await setLimits(tx, WHILE_ROWS_CHANGE);
      for (const table of rows) await replaceByVersion(tx, table, build);
      for (const table of tables) if (table.ownedBy) await replaceOwned(tx, table, table.ownedBy, build);
    }
    await moveBuild(tx, build, 'merge');
    return true;
  });
}

async function feedAll(
  tx: Tx,
  { code }: TakeoverWork,
  build: Build,
  checkpoints: readonly Checkpoint[],
  upTo: bigint,
): Promise<Checkpoint[]> {
  const reached: Checkpoint[] = [];
  for (const checkpoint of checkpoints) {
    reached.push({ ...checkpoint, position: await feed(tx, code, { build, checkpoint, upTo }) });
  }
  return reached;
}

/** Waits until everything is settled that was drawn by now; null when that takes too long. */
async function settle(tx: Tx, fence: Fence): Promise<bigint | null> {
  const drawn = await lastDrawn(tx);
  for (let waited = 0; waited < SETTLE_MS; waited += SETTLE_LOOK_MS) {
    const settled = await fence.advance(tx);
    if (settled >= drawn) return settled;
    await sleep(SETTLE_LOOK_MS);
  }
  return null;
}

interface Shape {
  readonly base: string;
  readonly side: string;
  /** All but generated columns, quoted. */
  readonly columns: readonly string[];
  /** Those of the primary key, quoted. */
  readonly key: readonly string[];
  readonly ownedBy: ProjectionTable['ownedBy'];
}

/** @throws CodedError PROJECTION_TABLE_UNSUITABLE for tables of which a tenant's rows cannot be told from others, or apart */
export async function checkTenantTables(tx: Tx, tables: readonly ProjectionTable[], build: Build): Promise<void> {
  for (const table of tables) await shapeOf(tx, table, build);
}

async function shapeOf(tx: Tx, { name: base, ownedBy }: ProjectionTable, build: Build): Promise<Shape> {
  const side = sideTable(base, build.build);
  const rows = await tx.query<{ column: string; is_key: boolean; is_generated: boolean }>(
    `select quote_ident(a.attname) as column, a.attgenerated <> '' as is_generated,
            coalesce(a.attnum = any(i.indkey::int2[]), false) as is_key
     from pg_attribute a left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
     where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped order by a.attnum`,
    [side],
  );
  const columns = rows.filter((row) => !row.is_generated).map(({ column }) => column);
  const key = rows.filter((row) => row.is_key).map(({ column }) => column);
  const ofRow = ownedBy ? [ownedBy.column] : ['id', 'version'];
  const needed = ['tenant_id', ...(build.mode === 'inline' ? ofRow : [])];
  if (key.length === 0 || needed.some((column) => !columns.includes(column))) {
    throw new CodedError(
      'PROJECTION_TABLE_UNSUITABLE',
      `Table ${base} of ${build.projection} needs a primary key and ${needed.join(', ')} to build one tenant anew.`,
      { table: base },
    );
  }
  return { base, side, columns, key, ownedBy };
}

const sameKey = (key: readonly string[], a: string, b: string) => key.map((k) => `${a}.${k} = ${b}.${k}`).join(' and ');

/** Makes the tenant's live rows equal to those of the build; rows that are equal stay untouched. */
async function replaceAll(tx: Tx, { base, side, columns, key }: Shape, { tenant }: Build): Promise<void> {
  await tx.execute(
    `delete from ${base} t where t.tenant_id = $1 and not exists
       (select 1 from ${side} g where ${sameKey(key, 'g', 't')} and to_jsonb(g) = to_jsonb(t))`,
    [tenant],
  );
  await tx.execute(
    `insert into ${base} (${columns.join(', ')}) overriding system value
     select ${columns.map((column) => `g.${column}`).join(', ')} from ${side} g
     where g.tenant_id = $1 and not exists (select 1 from ${base} t where ${sameKey(key, 'g', 't')})`,
    [tenant],
  );
}

/** What the lists of an inline takeover are called. */
const listOf = (base: string) => `pg_temp.strangers_${base}`.slice(0, 63);

/** Lists the live rows that the build does not know, and the other way round. */
async function listStrangers(tx: Tx, { base, side }: Shape, { tenant }: Build): Promise<void> {
  await tx.query(
    `create temporary table ${listOf(base).replace('pg_temp.', '')} (id uuid, is_live boolean) on commit drop`,
  );
  await tx.execute(
    `insert into ${listOf(base)}
     select coalesce(t.id, g.id), g.id is null
     from (select id from ${base} where tenant_id = $1) t full join (select id from ${side} where tenant_id = $1) g using (id)
     where t.id is null or g.id is null`,
    [tenant],
  );
}

async function replaceByVersion(tx: Tx, { base, side, columns, key }: Shape, { tenant }: Build): Promise<void> {
  await tx.execute(
    `delete from ${base} t using ${listOf(base)} s where t.tenant_id = $1 and t.id = s.id and s.is_live
       and not exists (select 1 from ${side} g where g.tenant_id = $1 and g.id = s.id)`,
    [tenant],
  );
  const values = columns.filter((column) => !key.includes(column));
  await tx.execute(
    `update ${base} t set ${values.map((column) => `${column} = g.${column}`).join(', ')}
     from ${side} g where t.tenant_id = $1 and g.tenant_id = $1 and t.id = g.id
       and t.version <= g.version and to_jsonb(t) <> to_jsonb(g)`,
    [tenant],
  );
  await tx.execute(
    `insert into ${base} (${columns.join(', ')}) overriding system value
     select ${columns.map((column) => `g.${column}`).join(', ')} from ${side} g join ${listOf(base)} s using (id)
     where g.tenant_id = $1 and not s.is_live on conflict do nothing`,
    [tenant],
  );
}

/**
 * Makes what belongs to the tenant's rows equal to what the build has, where a row is at the same version in both: a newer one
 * was written by a command, with what belongs to it. Rows where they differ are locked first, so that no command comes between.
 */
async function replaceOwned(
  tx: Tx,
  { base, side, columns, key }: Shape,
  { table, column }: NonNullable<ProjectionTable['ownedBy']>,
  { tenant, build }: Build,
): Promise<void> {
  const rows = `${table} t join ${sideTable(table, build)} g on g.tenant_id = t.tenant_id and g.id = t.id and g.version = t.version`;
  const own = (of: string) => `select ${key.join(', ')} from ${of} where tenant_id = t.tenant_id and ${column} = t.id`;
  const differs = (a: string, b: string) => `exists (${own(a)} except ${own(b)})`;
  const differing = await tx.query<{ id: string }>(
    `select t.id from ${rows} where t.tenant_id = $1 and (${differs(base, side)} or ${differs(side, base)})
     order by t.id for no key update of t`,
    [tenant],
  );
  const ids = differing.map(({ id }) => id);
  const still = `exists (select 1 from ${rows} where t.tenant_id = o.tenant_id and t.id = o.${column} and t.id = any($2::uuid[]))`;
  const gone = `not exists (select 1 from ${table} t where t.tenant_id = o.tenant_id and t.id = o.${column})`;
  const none = `not exists (select 1 from ${side} g where ${sameKey(key, 'g', 'o')})`;
  await tx.execute(`delete from ${base} o where o.tenant_id = $1 and ((${still} and ${none}) or ${gone})`, [
    tenant,
    ids,
  ]);
  await tx.execute(
    `insert into ${base} (${columns.join(', ')}) overriding system value
     select ${columns.map((each) => `o.${each}`).join(', ')} from ${side} o where o.tenant_id = $1 and ${still}
     on conflict do nothing`,
    [tenant, ids],
  );
}
