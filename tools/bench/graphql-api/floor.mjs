// The floor: Fastify and one prepared statement a request, whose JSON Postgres writes and nobody here reads. It has no login,
// no tenant and no GraphQL, so it does less than any product must.
import fastify from 'fastify';
import pg from 'pg';

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.POOL) });
const app = fastify();

const CONTACT = `c.id, c.name, c.email, c.stage, (select row_to_json(f) from (select id, name from peers.companies where id = c.company_id) f) as company`;
const page = (where, order) =>
  `select coalesce(json_agg(row_to_json(x)), '[]')::text as body from (
     select ${CONTACT} from peers.contacts c where ${where} order by ${order} limit $1) x`;

const STATEMENTS = {
  list: page('true', 'c.id'),
  one: `select row_to_json(x)::text as body from (select ${CONTACT} from peers.contacts c where c.id = $1) x`,
  page: page('c.stage = $2', 'c.name, c.id'),
  behind: page('c.stage = $2 and (c.name, c.id) > ($3, $4)', 'c.name, c.id'),
  create: `with made as (
      insert into peers.contacts (name, email, phone, stage, company_id) values ($1, $2, $3, $4, $5) returning id, name, email, stage
    ) select row_to_json(made)::text as body from made`,
};

async function answer(reply, name, values) {
  const { rows } = await pool.query({ name, text: STATEMENTS[name], values });
  return reply.type('application/json').send(rows[0].body);
}

app.get('/contacts', ({ query }, reply) => {
  if (query.after) return answer(reply, 'behind', [query.first, query.stage, query.after, query.id]);
  return query.stage ? answer(reply, 'page', [query.first, query.stage]) : answer(reply, 'list', [query.first]);
});
app.get('/contacts/:id', ({ params }, reply) => answer(reply, 'one', [params.id]));
app.post('/contacts', ({ body }, reply) =>
  answer(reply, 'create', [body.name, body.email, body.phone, body.stage, body.companyId]),
);

console.log(await app.listen({ port: 0, host: '127.0.0.1' }));
