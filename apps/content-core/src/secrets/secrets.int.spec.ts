import { accessMigrations, Secrets } from '@atomo-cc/access';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import { EventCodec, eventStoreMigrations, SubjectKeys } from '@atomo-cc/event-store';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { auditApi, eventsApi } from '../events/index.js';
import { anApi, type Answer, callers, SHOP_TENANTS, type TestApi } from '../testing/index.js';
import { secretsApi } from './secrets-api.js';

const VALUE = 'xoxb-0123456789-abcdefghij-9Zq4';
const FIELDS = 'name kind hint setBy createdAt updatedAt usedAt';

let database: TestDatabase;
let api: TestApi;
let secrets: Secrets;
const announced: string[] = [];

beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  for (const [n, tenant] of SHOP_TENANTS.entries()) {
    await database.asOwner(`insert into tenants (id, name, slug) values ($1, $2, $2)`, [tenant, `shop${n}`]);
  }
  const keys = new SubjectKeys('a key of this test, long enough for it');
  const codec = new EventCodec(keys, ATOMO_EVENTS);
  secrets = new Secrets(keys.ring);
  api = await anApi([
    secretsApi(secrets, database.app, (tenant) => void announced.push(tenant)),
    auditApi(database.app, codec),
    eventsApi(database.app, codec),
  ]);
});
afterAll(async () => {
  await api?.close();
  await database?.drop();
});
afterEach(() => {
  callers.role = 'Admin';
});

const set = (variables: { name: string; value: string }, tenant = SHOP_TENANTS[0]): Promise<Answer> =>
  api.ask(
    `mutation ($name: String!, $value: String!) { setSecret(name: $name, value: $value, reason: "import") { ${FIELDS} } }`,
    variables,
    tenant,
  );

test('an Admin sets, lists and removes a secret, and no answer of the API has its value, not even the log', async () => {
  const answers = [await set({ name: 'slack/team-a', value: VALUE })];
  expect(answers[0]!.data.setSecret).toMatchObject({ name: 'slack/team-a', kind: 'slack', hint: '9Zq4', usedAt: null });
  expect(await secrets.open(database.system, SHOP_TENANTS[0], 'slack/team-a')).toBe(VALUE);
  answers.push(await api.ask(`{ secrets { ${FIELDS} } }`));
  expect(answers[1]!.data.secrets).toMatchObject([{ hint: '9Zq4', usedAt: expect.any(String) }]);
  answers.push(await api.ask('mutation { removeSecret(name: "slack/team-a", reason: "left") }'));
  expect(answers[2]!.data).toEqual({ removeSecret: true });
  const again = await api.ask('mutation { removeSecret(name: "slack/team-a") }');
  expect(again.errors).toMatchObject([{ extensions: { code: 'NOT_FOUND' } }]);

  answers.push(await api.ask('{ auditLog { nodes { action actor address reason fields changes { field after } } } }'));
  const said = { actor: expect.stringMatching(/^user:/), address: '127.0.0.1', fields: ['name'] };
  expect(answers[3]!.data.auditLog.nodes).toMatchObject([
    { ...said, action: 'access.secretRemoved', reason: 'left' },
    { ...said, action: 'access.secretSet', reason: 'import' },
  ]);
  answers.push(await api.ask('{ events { nodes { type data metadata } } }'));
  expect(answers[4]!.data.events.nodes).toMatchObject([
    { type: 'access.secretSet', data: { name: 'slack/team-a' } },
    { type: 'access.secretRemoved', data: { name: 'slack/team-a' } },
  ]);
  expect(JSON.stringify(answers)).not.toContain(VALUE.slice(0, -4));
  expect(announced).toEqual([SHOP_TENANTS[0], SHOP_TENANTS[0]]);
});

test('what is refused is told without the value', async () => {
  for (const variables of [
    { name: 'passwords', value: VALUE },
    { name: 'slack', value: `${VALUE} ` },
  ]) {
    const answer = await set(variables);
    expect(answer.errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
    expect(JSON.stringify(answer)).not.toContain(VALUE);
  }
});

test.each([
  ['secrets', '{ secrets { name } }'],
  ['setSecret', `mutation { setSecret(name: "slack", value: "${VALUE}") { name } }`],
  ['removeSecret', 'mutation { removeSecret(name: "slack") }'],
])('%s is forbidden to a Manager', async (_field, query) => {
  callers.role = 'Manager';
  const answer = await api.ask(query);
  expect(answer).toMatchObject({ errors: [{ extensions: { code: 'FORBIDDEN' } }] });
  expect(JSON.stringify(answer)).not.toContain(VALUE);
});

test('secrets of another tenant are neither seen nor changed', async () => {
  await set({ name: 'slack', value: VALUE });
  expect((await api.data('{ secrets { name } }', {}, SHOP_TENANTS[1])).secrets).toEqual([]);
  const removed = await api.ask('mutation { removeSecret(name: "slack") }', {}, SHOP_TENANTS[1]);
  expect(removed.errors).toMatchObject([{ extensions: { code: 'NOT_FOUND' } }]);
  await set({ name: 'slack', value: 'of the other tenant' }, SHOP_TENANTS[1]);
  expect(await secrets.open(database.system, SHOP_TENANTS[0], 'slack')).toBe(VALUE);
});
