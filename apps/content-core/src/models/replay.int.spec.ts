import { uuidv7, type TenantId } from '@atomo-cc/kernel';
import { ATOMO_EVENTS } from '@atomo-cc/events';
import {
  append,
  checkpointKey,
  destroySubjectKey,
  EventCodec,
  exportLog,
  importLog,
  ProjectionRunner,
  replayLog,
  SubjectKeys,
  verifyLog,
  type DecodeEvents,
  type Projection,
} from '@atomo-cc/event-store';
import { formerNames, modelNamed, type SchemaDefinition } from '@atomo-cc/schema';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { contentCoreMigrations } from '../migrations.js';
import { aPrincipal, SHOP, SHOP_TENANTS } from '../testing/index.js';
import { RecordCommands } from './commands.js';
import { erasePersonal } from './history-projection.js';
import { createModelTables } from './model-tables.js';
import { projectionsOf } from './row-projection.js';

const KEY = checkpointKey('the secret of this test');
/** The shop, with something personal in it. */
const SCHEMA: SchemaDefinition = {
  ...SHOP,
  models: SHOP.models.map((model) => ({
    ...model,
    fields: model.fields.map((field) =>
      field.name === 'contactMail' ? { ...field, pii: 'personal' as const } : field,
    ),
  })),
};
const ITEM = modelNamed(SCHEMA, 'Item');
const BRAND = modelNamed(SCHEMA, 'Brand');
/** A limit for a busy machine, not for the promise. */
jest.setTimeout(120_000);

const COUNTING: Projection = {
  name: 'counting',
  version: 1,
  mode: 'async',
  eventTypes: 'all',
  shards: 2,
  tables: [
    {
      name: 'counts',
      create: async (tx, name) => {
        await tx.execute(
          `create table if not exists ${name} (tenant_id uuid, type text, n int, primary key (tenant_id, type))`,
        );
        await tx.execute(`grant select, insert, update on ${name} to atomo_system`);
      },
    },
  ],
  apply: async (batch, tx, target) => {
    for (const { tenant, type } of batch) {
      await tx.execute(
        `insert into ${target.table('counts')} as c values ($1, $2, 1)
         on conflict (tenant_id, type) do update set n = c.n + 1`,
        [tenant, type],
      );
    }
  },
};
const codec = new EventCodec(new SubjectKeys('the encryption key of these tests'), ATOMO_EVENTS);
const decode: DecodeEvents = (tx, events) => codec.decode(tx, events);
const PROJECTIONS = [...projectionsOf(SCHEMA, codec), COUNTING];
const DERIVED = [ITEM.table, BRAND.table, 'history_item', 'history_brand', 'counts'];
const TABLES = ['event_log', 'event_streams', 'subject_keys', 'command_answers', 'audit_log', ...DERIVED];

async function aShop(): Promise<TestDatabase> {
  const database = await aDatabase(contentCoreMigrations, { poolSize: 8 });
  await createModelTables(database.url, SCHEMA);
  return database;
}

/** Everything that the projections make, up to the end of the log. */
async function project(database: TestDatabase): Promise<void> {
  const options = {
    database: database.system,
    databaseUrl: database.url,
    projections: PROJECTIONS,
    decode,
    pollMs: 20,
  };
  const runner = new ProjectionRunner(options);
  await runner.start();
  await eventually('all is projected', async () => (await runner.status()).every(({ lagEvents }) => lagEvents === 0));
  await runner.stop();
}

/** Items of every kind; one item's personal field is erased everywhere, another's was written again after that. */
async function fill(database: TestDatabase): Promise<void> {
  const commands = new RecordCommands(SCHEMA, database.app, { codec });
  for (const tenant of SHOP_TENANTS) {
    const context = { principal: aPrincipal(tenant), requestId: uuidv7() };
    const acme = await commands.create({ model: BRAND, input: { name: 'Acme' }, idempotencyKey: 'brand', context });
    const ids: string[] = [];
    await Promise.all(
      Array.from({ length: 60 }, async (_, n) => {
        const input = {
          title: `Item "${n}" 😀`,
          price: n / 3,
          arrivesOn: '2026-11-21',
          size: 'Small',
          brandId: acme.id,
        };
        const mail = n % 2 ? { contactMail: `${n}@example.com` } : {};
        const { id } = await commands.create({
          model: ITEM,
          input: { ...input, ...mail },
          idempotencyKey: n % 2 ? `key ${n}` : null,
          context,
        });
        const changes = { price: null, title: `changed ${n}` };
        ids[n] = id;
        if (n % 3 === 0)
          await commands.update({ model: ITEM, id, input: changes, expectedVersion: 1, idempotencyKey: null, context });
      }),
    );
    await happen(database, tenant, 'Note-1', { text: 'raw' });
    await project(database);
    for (const id of [ids[1]!, ids[5]!]) {
      await database.system.transaction(async (tx) => {
        await destroySubjectKey(tx, tenant, `Item-${id}`);
        await erasePersonal(tx, ITEM, 'history_item', { tenant, id, version: 99 });
        await tx.execute(`update ${ITEM.table} set contact_mail = null where tenant_id = $1 and id = $2`, [tenant, id]);
      });
    }
    const again = { contactMail: 'again@example.com' };
    await commands.update({
      model: ITEM,
      id: ids[5]!,
      input: again,
      expectedVersion: 1,
      idempotencyKey: null,
      context,
    });
  }
  await project(database);
}

function happen(database: TestDatabase, tenant: TenantId, stream: string, data: object) {
  const metadata = { actor: 'system:test', correlationId: 'c', causationId: 'd', address: '192.0.2.1' };
  const events = [{ type: 'Note.updated', schemaVersion: 1, data: { ...data } }];
  return database.app.transaction(tenant, (tx) => append(tx, tenant, [{ stream, expected: 'any', events, metadata }]));
}

async function copyLog(from: TestDatabase, to: TestDatabase, tenant?: TenantId): Promise<void> {
  let text = '';
  await exportLog(from.system, { key: KEY, tenant, write: (lines) => void (text += lines) });
  async function* lines() {
    yield* text.slice(0, -1).split('\n');
  }
  await importLog(to.url, lines(), { key: KEY });
}

/** Rows that one has and the other lacks, both ways. */
async function differences(a: TestDatabase, b: TestDatabase, table: string): Promise<unknown[]> {
  const all = (database: TestDatabase) =>
    database.asOwner<{ row: string }>(`select to_jsonb(t)::text as row from ${table} t`);
  const [ours, theirs] = [await all(a), await all(b)].map((rows) => new Set(rows.map(({ row }) => row)));
  expect(ours!.size).toBeGreaterThan(table === 'subject_keys' ? -1 : 0);
  return [...ours!.symmetricDifference(theirs!)];
}

describe('a copy of the log', () => {
  let source: TestDatabase;
  let copy: TestDatabase;
  beforeAll(async () => {
    [source, copy] = await Promise.all([aShop(), aShop()]);
    await fill(source);
    await copyLog(source, copy);
  });
  afterAll(() => Promise.all([source?.drop(), copy?.drop()]));
  const replay = (isAgain = false, projections: readonly Projection[] = PROJECTIONS) =>
    replayLog({ databaseUrl: copy.url, database: copy.system, projections, decode, isAgain });
  beforeAll(() => project(copy).then(() => copy.asOwner(`truncate ${DERIVED.join(', ')}`)));

  it('becomes the database it was made of by a replay, row for row', async () => {
    const steps: string[] = [];
    const onProgress = (step: string) => void (steps.at(-1) === step || steps.push(step));
    const totals = await replayLog({
      databaseUrl: copy.url,
      database: copy.system,
      projections: PROJECTIONS,
      decode,
      isAgain: false,
      onProgress,
    });
    expect(totals).toEqual({ audit: 166, 'rows-brand': 2, 'rows-item': 162, counting: 166, history: 164 });
    expect(steps.slice(0, 3)).toEqual(['audit', 'rows-brand', 'rows-item']);
    const mails = await copy.asOwner(
      `select contact_mail, count(*)::int as n from ${ITEM.table} where contact_mail is null or contact_mail like 'again%' group by 1 order by 1`,
    );
    expect(mails).toEqual([
      { contact_mail: 'again@example.com', n: 2 },
      { contact_mail: null, n: 62 },
    ]);
    for (const table of TABLES) expect([table, await differences(source, copy, table)]).toEqual([table, []]);
    const types = 'select tenant_id, type, count(*)::int as n from event_log group by 1, 2 order by 1, 2';
    expect(await copy.asOwner('select * from counts order by 1, 2')).toEqual(await source.asOwner(types));
    expect(await verifyLog(copy.system, { onFault: () => undefined })).toMatchObject({ events: 166, broken: 0 });
  });

  it('is not replayed over what is there, unless that is emptied first', async () => {
    await expect(replay()).rejects.toMatchObject({ code: 'REPLAY_NOT_EMPTY' });
    await copy.asOwner(`update ${ITEM.table} set title = 'wrong'`);
    await copy.asOwner('update audit_log set actor = $1 where stream_version = 2', ['wrong']);
    await replay(true);
    for (const table of TABLES) expect([table, await differences(source, copy, table)]).toEqual([table, []]);
    expect(await copy.asOwner('select sum(n)::int as n from counts')).toEqual([{ n: 166 }]);
  });

  it('says so when a projection cannot get to the end', async () => {
    const broken = { ...COUNTING, apply: async () => Promise.reject(new Error('no such luck')) };
    const failed = replay(true, [...projectionsOf(SCHEMA, codec), broken]);
    await expect(failed).rejects.toMatchObject({ code: 'REPLAY_STOPPED' });
    await replay(true);
    expect(await copy.asOwner('select sum(n)::int as n from counts')).toEqual([{ n: 166 }]);
  });

  it('answers repeated commands as the first one did, and goes on', async () => {
    const commands = new RecordCommands(SCHEMA, copy.app, { codec });
    const context = { principal: aPrincipal(SHOP_TENANTS[0]), requestId: uuidv7() };
    const { id } = await commands.create({ model: BRAND, input: { name: 'Acme' }, idempotencyKey: 'brand', context });
    expect(await copy.asOwner(`select count(*)::int as n from ${BRAND.table}`)).toEqual([{ n: 2 }]);
    const input = { name: 'Other' };
    await commands.update({ model: BRAND, id, input, expectedVersion: 1, idempotencyKey: null, context });
    expect(await verifyLog(copy.system, { onFault: () => undefined })).toMatchObject({ events: 167, broken: 0 });
  });

  it('is made anew under the names that fields have today', async () => {
    const today: SchemaDefinition = {
      ...SCHEMA,
      models: SCHEMA.models.map((model) => ({
        ...model,
        fields: model.fields.map((field) => {
          const name = { title: 'headline', contactMail: 'mail', brand: 'maker' }[field.name];
          return name ? { ...field, name, formerly: [field.name] } : field;
        }),
      })),
    };
    const facts = (names: string) =>
      copy.asOwner(`select id, version, ${names} from ${ITEM.table} order by tenant_id, id`);
    const before = await facts('title as a, contact_mail as b, brand_id as c');
    await createModelTables(copy.url, today);
    expect(await facts('headline as a, mail as b, maker_id as c')).toEqual(before);
    const renaming = new EventCodec(
      new SubjectKeys('the encryption key of these tests'),
      ATOMO_EVENTS.withFormerNames(formerNames(today)),
    );
    await replayLog({
      databaseUrl: copy.url,
      database: copy.system,
      projections: [...projectionsOf(today, renaming), COUNTING],
      decode: (tx, events) => renaming.decode(tx, events),
      isAgain: true,
    });
    expect(await facts('headline as a, mail as b, maker_id as c')).toEqual(before);
    const past = 'select count(*)::int as n from history_item where headline is null or maker_id is null';
    expect(await copy.asOwner(past)).toEqual([{ n: 0 }]);
  });
});

it('appends wait while the rows are made, so that none is applied twice or left out', async () => {
  const database = await aShop();
  try {
    await fill(database);
    let meanwhile: Promise<unknown> | undefined;
    const [first, ...others] = PROJECTIONS as [Projection, ...Projection[]];
    const watched: Projection = {
      ...first,
      apply: async (batch, tx, target) => {
        meanwhile ??= happen(database, SHOP_TENANTS[0], 'Note-2', { text: 'late' });
        await eventually('the append waits', async () => {
          const waiting = `select 1 from pg_locks where locktype = 'advisory' and not granted
            and database = (select oid from pg_database where datname = current_database())`;
          return (await database.asOwner(waiting)).length > 0;
        });
        await first.apply(batch, tx, target);
      },
    };
    const options = { databaseUrl: database.url, database: database.system, decode, isAgain: true };
    expect(await replayLog({ ...options, projections: [watched, ...others] })).toMatchObject({ audit: 166 });
    await meanwhile;
    expect(await database.asOwner('select count(*)::int as n from audit_log')).toEqual([{ n: 167 }]);
  } finally {
    await database.drop();
  }
});
