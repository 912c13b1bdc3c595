import path from 'node:path';
import { eventStoreMigrations } from '@atomo-cc/event-store';
import type { SchemaDefinition } from '@atomo-cc/schema';
import { Leases1700000001000 } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { anApi, callers, type TestApi } from '../testing/index.js';
import { loadSchema } from './load-schema.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

/** For a busy machine. */
jest.setTimeout(60_000);

let schema: SchemaDefinition;
let database: TestDatabase;
let api: TestApi;
let contact: string;
let company: string;

const as = (role: string, query: string) => {
  callers.role = role;
  return api.ask(query);
};

beforeAll(async () => {
  schema = await loadSchema(path.resolve(__dirname, '../../../../services/sketch'));
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations]);
  await createModelTables(database.url, schema);
  api = await anApi([modelsApi(schema, database.app)], schema.roles);
  callers.role = 'Admin';
  const made = await api.data('mutation { createCompany(input: { name: "Sea" }) { id } }');
  company = made.createCompany.id;
  const { createContact } = await api.data(
    'mutation ($input: CreateContactInput!) { createContact(input: $input) { id } }',
    { input: { name: 'Ada', email: 'ada@example.com', companyId: company, notes: [{ type: 'Paragraph', text: 'x' }] } },
  );
  contact = createContact.id;
});
afterAll(async () => {
  callers.role = 'Admin';
  await api?.close();
  await database?.drop();
});

const CALLERS = ['Admin', 'Manager', 'Sales', 'Support', 'Viewer'];

test.each(CALLERS)('%s reads of a contact what the sketch says', async (role) => {
  const { data } = await as(role, '{ __type(name: "Contact") { fields { name } } }');
  // Of companies it says nothing, so they are Admin's alone, and a contact's leads no other role further than its id.
  const seen = role === 'Viewer' ? ['companyId', 'email', 'id', 'name'] : ['id', 'name'];
  expect(data.__type.fields.map(({ name }: { name: string }) => name).toSorted()).toEqual(seen);
  const { data: read } = await as(role, `{ contact(id: "${contact}") { ${seen.join(' ')} } }`);
  const whole: Record<string, string> = { id: contact, name: 'Ada', email: 'ada@example.com', companyId: company };
  expect(read.contact).toEqual(Object.fromEntries(seen.map((name) => [name, whole[name]])));
  for (const hidden of ['email', 'companyId', 'notes', 'version'].filter((name) => !seen.includes(name)))
    expect((await as(role, `{ contact(id: "${contact}") { ${hidden} } }`)).errors).toHaveLength(1);
});

test.each(CALLERS)('%s writes contacts if the sketch says so', async (role) => {
  const answer = await as(role, `mutation { updateContact(id: "${contact}", input: { name: "Ada L." }) { name } }`);
  if (role === 'Admin' || role === 'Manager') expect(answer.data).toEqual({ updateContact: { name: 'Ada L.' } });
  else expect(answer.errors).toMatchObject([{ extensions: { code: 'FORBIDDEN' } }]);
  // What it leaves out is Admin's alone.
  const made = await as(role, 'mutation { createContact(input: { name: "New", notes: [] }) { id } }');
  expect([role, made.errors?.[0]?.extensions?.['code']]).toEqual([role, role === 'Admin' ? undefined : 'FORBIDDEN']);
  const companies = await as(role, '{ companies { totalCount } }');
  expect(companies.errors === undefined).toBe(role === 'Admin');
  await as('Admin', `mutation { updateContact(id: "${contact}", input: { name: "Ada" }) { name } }`);
});
