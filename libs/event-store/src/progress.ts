import type { TenantId } from '@atomo-cc/kernel';
import type { Tx } from '@atomo-cc/platform/postgres';

/** How far a projection's answer about a time can be trusted. */
export interface Progress {
  /** Whether that time has not come yet by the database's clock. */
  readonly isToCome: boolean;
  /** Whether events recorded up to that time are in the log, and not applied yet. */
  readonly isBehind: boolean;
  /** Whether such an event could not be applied, and waits for an operator. */
  readonly hasFailed: boolean;
}

/**
 * Looks whether a projection has applied everything that one tenant's log has of some types up to a time. Asked in the
 * transaction that then reads the projection's tables, before it reads them: a statement sees what was committed before it
 * began, and the projection only goes forward, so what was applied here is there; a build that takes the live one's place has
 * applied what that one had.
 *
 * What was committed before this look is found, because a commit is visible to the statements that begin after it. An
 * event may say an earlier time and be committed after this look; the asker could not know of it by any other way either, so
 * answers about the last moments may still grow by what was under way. By when it was committed, and not by what it says,
 * it is never missed.
 */
export async function progressAt(
  tx: Tx,
  tenant: TenantId,
  projection: string,
  time: Date,
  types: readonly string[],
): Promise<Progress> {
  // Positions do not follow the times that events say, so whatever lies behind the checkpoint is looked at. That is little, or
  // the projection is behind and the first event tells. `offset 0` keeps the planner, which cannot know that, from taking
  // the whole log for the shorter way.
  const [row] = await tx.query<Progress>(
    `select clock_timestamp() <= $3::timestamptz as "isToCome",
            exists (select 1 from (select recorded_at, type from event_log
                                   where tenant_id = $1 and position > c.position order by position offset 0) e
                    where e.recorded_at <= $3 and e.type = any($4)) as "isBehind",
            exists (select 1 from (select position from projection_dead_letters
                                   where projection = $2 and build = c.build and state = 'open' and tenant_id = $1
                                     and type = any($4) offset 0) d
                    join event_log e on e.position = d.position
                    where e.recorded_at <= $3) as "hasFailed"
     from (select b.build, coalesce(min(p.position), 0) as position
           from (select (select build from projection_builds where projection = $2 and state = 'live') as build) b
           left join projection_checkpoints p on p.projection = $2 and p.build = b.build group by b.build) c`,
    [tenant, projection, time, types],
  );
  return row!;
}
