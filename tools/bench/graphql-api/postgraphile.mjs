// PostGraphile 5 as its documentation starts it, without roles, on the floor's tables.
import { createServer } from 'node:http';
import { postgraphile } from 'postgraphile';
import { grafserv } from 'postgraphile/grafserv/node';
import { makePgService } from 'postgraphile/adaptors/pg';
import { PostGraphileAmberPreset } from 'postgraphile/presets/amber';

const pgl = postgraphile({
  extends: [PostGraphileAmberPreset],
  // It offers an order only by the first column of an index; ours is by stage and name.
  disablePlugins: ['PgIndexBehaviorsPlugin'],
  grafserv: { graphiql: false, websockets: false },
  pgServices: [
    makePgService({
      connectionString: process.env.DATABASE_URL,
      schemas: ['peers'],
      poolConfig: { max: Number(process.env.POOL) },
    }),
  ],
});
const served = pgl.createServ(grafserv);
const server = createServer();
await served.addTo(server);
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
