// A projection's runner as a process of its own, slow enough to be killed in the middle of a build. Needs the build.
import { openSystemDatabase, tenantTable } from '@atomo-cc/platform/postgres';
import { ProjectionRunner } from '../../dist/index.js';

const [databaseUrl, name, table] = process.argv.slice(2);
const database = await openSystemDatabase({ url: databaseUrl, service: 'slow-runner', poolSize: 4 });
const runner = new ProjectionRunner({
  database,
  databaseUrl,
  leaseMs: 600,
  pollMs: 30,
  maxEvents: 100,
  projections: [
    {
      name,
      version: 1,
      shards: 1,
      mode: 'async',
      eventTypes: { 'Sum.changed': [1] },
      tables: [
        {
          name: table,
          create: async (tx, physical) => {
            const [there] = await tx.query('select 1 where to_regclass($1) is not null', [physical]);
            if (there) return;
            await tx.query(
              `create table ${physical} (tenant_id uuid not null, stream text not null, n int not null, sum bigint not null, primary key (tenant_id, stream))`,
            );
            const rights = { app: 'select', system: 'select, insert, update, delete' };
            for (const sql of tenantTable(physical, rights)) await tx.query(sql);
          },
        },
      ],
      apply: async (batch, tx, target) => {
        await tx.query('select pg_sleep(0.05)');
        await tx.execute(
          `insert into ${target.table(table)} as t (tenant_id, stream, n, sum)
           select tenant, stream, count(*), sum(n)
           from jsonb_to_recordset($1::jsonb) as r (tenant uuid, stream text, n int) group by tenant, stream
           on conflict (tenant_id, stream) do update set n = t.n + excluded.n, sum = t.sum + excluded.sum`,
          [JSON.stringify(batch.map(({ tenant, stream, data }) => ({ tenant, stream, n: data.n })))],
        );
      },
    },
  ],
});
await runner.start();
