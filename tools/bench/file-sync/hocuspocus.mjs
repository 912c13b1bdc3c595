// Hocuspocus as its guide has it, with its database extension on our Postgres. As shipped it acks an edit once it is in memory, and
// stores the document when 2 s have passed without one, at the latest after 10 s. With DURABLE=1 it stores after every edit, and
// tells its clients up to where they are stored, which is what our ack says.
import { Database } from '@hocuspocus/extension-database';
import { Server } from '@hocuspocus/server';
import pg from 'pg';
import * as Y from 'yjs';

const isDurable = process.env.DURABLE === '1';
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
// The database is dropped while a process that is being ended still has connections.
pool.on('error', () => undefined);
await pool.query('create table if not exists documents (name text primary key, state bytea not null)');

const database = new Database({
  fetch: async ({ documentName }) => {
    const { rows } = await pool.query('select state from documents where name = $1', [documentName]);
    return rows[0]?.state ?? null;
  },
  store: async ({ documentName, document, state }) => {
    await pool.query({
      name: 'store',
      text: 'insert into documents values ($1, $2) on conflict (name) do update set state = excluded.state',
      values: [documentName, state],
    });
    if (!isDurable) return;
    const clocks = Y.decodeStateVector(Y.encodeStateVectorFromUpdate(state));
    document.broadcastStateless(JSON.stringify([...clocks]));
  },
});

const server = new Server({
  address: '127.0.0.1',
  port: 0,
  quiet: true,
  stopOnSignals: false,
  extensions: [database],
  ...(isDurable && { debounce: 0 }),
});
await server.listen();
process.on('SIGTERM', () => process.exit(0));
process.send({ url: `ws://127.0.0.1:${server.address.port}` });
