import { accessEntities, accessMigrations, setLimit } from '@atomo-cc/access';
import { eventStoreMigrations } from '@atomo-cc/event-store';
import { openSystemDatabase, type SystemDatabase } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { anApi, callers, SHOP_TENANTS, type TestApi } from '../testing/index.js';
import { planApi } from './plan-api.js';

const [FREE, TEAM] = SHOP_TENANTS;
const QUERY = '{ tenantPlan { name quotas { name unit reason limit isOwn used reserved renewsAt } } }';

let database: TestDatabase;
let system: SystemDatabase;
let api: TestApi;
beforeAll(async () => {
  database = await aDatabase([...accessMigrations, ...eventStoreMigrations]);
  system = await openSystemDatabase({ url: database.url, service: 'test', entities: accessEntities });
  for (const [plan, tenant] of [['free', FREE] as const, ['team', TEAM] as const])
    await database.asOwner('insert into tenants (id, name, slug, plan) values ($1, $2, $2, $2)', [tenant, plan]);
  api = await anApi([planApi(database.app)], ['Admin', 'Viewer']);
});
afterAll(async () => {
  await api?.close();
  await system?.close();
  await database?.drop();
});
afterEach(() => {
  callers.role = 'Admin';
});

test('an Admin sees the plan of the own tenant, its limits and what is used of them', async () => {
  await setLimit(system, FREE, 'users=7', { actor: 'operator:ada' });
  const { tenantPlan } = await api.data(QUERY);
  expect(tenantPlan.name).toBe('free');
  expect(tenantPlan.quotas).toContainEqual({
    name: 'users',
    unit: 'users',
    reason: expect.stringMatching(/priced/),
    limit: 7,
    isOwn: true,
    used: 0,
    reserved: 0,
    renewsAt: null,
  });
  expect(tenantPlan.quotas).toContainEqual(
    expect.objectContaining({
      name: 'importedRecords',
      limit: 10_000,
      renewsAt: expect.stringMatching(/-01T00:00:00\.000Z$/),
    }),
  );
  const { tenantPlan: other } = await api.data(QUERY, {}, TEAM);
  expect(other.name).toBe('team');
  expect(other.quotas).toContainEqual(expect.objectContaining({ name: 'users', limit: 100, isOwn: false }));
});

test('nobody else sees it', async () => {
  callers.role = 'Viewer';
  const { errors } = await api.ask(QUERY);
  expect(errors).toMatchObject([{ extensions: { code: 'FORBIDDEN' } }]);
});
