// Payload 3 with its REST endpoints, on node:http instead of Next (which only costs it time). Everybody may read and write.
//
// PUSH=1 makes the tables in the schema `payload`, which Payload does only outside production, and ends.
import { createServer } from 'node:http';
import { postgresAdapter } from '@payloadcms/db-postgres';
import { buildConfig, getPayload, handleEndpoints } from 'payload';

const everybody = () => true;
const access = { read: everybody, create: everybody, update: everybody, delete: everybody };
const isPush = process.env.PUSH === '1';

const config = await buildConfig({
  secret: 'the secret of the benchmark, 32 long',
  telemetry: false,
  collections: [
    { slug: 'companies', access, fields: [{ name: 'name', type: 'text', required: true }] },
    {
      slug: 'contacts',
      access,
      fields: [
        { name: 'name', type: 'text', required: true },
        { name: 'email', type: 'text' },
        { name: 'phone', type: 'text' },
        { name: 'stage', type: 'select', options: ['Lead', 'Prospect', 'Customer', 'Former'] },
        { name: 'company', type: 'relationship', relationTo: 'companies' },
      ],
      indexes: [{ fields: ['stage', 'name'] }],
    },
  ],
  db: postgresAdapter({
    pool: { connectionString: process.env.DATABASE_URL, max: Number(process.env.POOL) },
    idType: 'uuid',
    schemaName: 'payload',
    push: isPush,
  }),
});
await getPayload({ config });
if (isPush) process.exit(0);

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const answer = await handleEndpoints({
    config,
    request: new Request(`http://${request.headers.host}${request.url}`, {
      method: request.method,
      headers: request.headers,
      ...(chunks.length > 0 && { body: Buffer.concat(chunks) }),
    }),
  });
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.end(Buffer.from(await answer.arrayBuffer()));
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
