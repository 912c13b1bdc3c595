import { eventStoreMigrations, type EventOpener } from '@atomo-cc/event-store';
import type { RecordedEvent } from '@atomo-cc/events';
import { uuidv7 } from '@atomo-cc/kernel';
import { inputName, type SchemaDefinition } from '@atomo-cc/schema';
import { aDatabase, seeded, type TestDatabase } from '@atomo-cc/testing';
import { SHOP, SHOP_TENANTS } from '../testing/index.js';
import { RecordCommands } from './commands.js';
import { erasePersonal, historyProjection } from './history-projection.js';
import { createModelTables } from './model-tables.js';
import { eventsInLog, itemInput, randomHistory } from './testing/histories.js';

const SEED = Number(process.env['SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const [OURS, THEIRS] = SHOP_TENANTS;
const START = Date.parse('2026-01-01T00:00:00Z');
const item = SHOP.models.find(({ name }) => name === 'Item')!;
const names = item.fields.map(inputName);

/** For a busy machine. */
jest.setTimeout(60_000);

let database: TestDatabase;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  await createModelTables(database.url, SHOP);
});

afterAll(() => database?.drop());

beforeEach(() =>
  database.asOwner('truncate event_log, event_streams, model_item, model_brand, history_item, history_brand'),
);

const apply = (batch: readonly RecordedEvent[], codec?: EventOpener, schema: SchemaDefinition = SHOP) =>
  database.system.transaction((tx) =>
    historyProjection(schema, codec).apply(batch, tx, {
      build: 2,
      isLive: false,
      table: (base) => base,
      mayAct: () => false,
    }),
  );

/** Puts events of items into the log, at times of our choice. */
async function log(
  events: readonly { id: string; version: number; at: number; data: object; kind?: string }[],
  tenant = OURS,
): Promise<RecordedEvent[]> {
  await database.asOwner(
    `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata, recorded_at)
     select nextval('event_log_position'), $1, 'Item-' || e.id, e.version,
            'Item.' || coalesce(e.kind, case e.version when 1 then 'created' else 'updated' end), 1, e.data, '{}', to_timestamp(e.at / 1000.0)
     from jsonb_to_recordset($2::jsonb) as e (id text, version int, at float8, data jsonb, kind text)`,
    [tenant, JSON.stringify(events)],
  );
  return eventsInLog(database, [item]);
}

interface Range {
  readonly id: string;
  readonly version: number;
  readonly from: number;
  readonly to: number;
  readonly values: Record<string, unknown>;
}

/** The ranges that the events must come to, computed in the plainest way. */
function rangesOf(events: readonly RecordedEvent[]): Range[] {
  const streams = Object.values(Object.groupBy(events, ({ stream, tenant }) => stream + tenant));
  return streams.flatMap((group) => {
    const inOrder = group!.toSorted((a, b) => a.streamVersion - b.streamVersion);
    const starts = inOrder.map((_, i) => Math.max(...inOrder.slice(0, i + 1).map((e) => e.recordedAt.getTime())));
    return inOrder.map((event, i) => {
      const said = Object.assign({}, ...inOrder.slice(0, i + 1).map(({ data }) => data)) as Record<string, unknown>;
      return {
        id: event.stream.slice('Item-'.length),
        version: event.streamVersion,
        from: starts[i]!,
        to: starts[i + 1] ?? Infinity,
        values: Object.fromEntries([
          ...names.map((name) => [name, said[name] ?? null]),
          ['createdAt', inOrder[0]!.recordedAt.getTime()],
          ['updatedAt', event.recordedAt.getTime()],
        ]) as Record<string, unknown>,
      };
    });
  });
}

async function rangesInTable(): Promise<Range[]> {
  const rows = await database.asOwner<Range & { to: number | null }>(
    `select id, version, (extract(epoch from valid_from) * 1000)::float8 as from,
            case when valid_to = 'infinity' then null else (extract(epoch from valid_to) * 1000)::float8 end as to,
            jsonb_build_object('title', title, 'contactMail', contact_mail, 'price', price, 'inStock', in_stock,
              'arrivesOn', arrives_on, 'size', size, 'brandId', brand_id, 'order', "order",
              'createdAt', (extract(epoch from created_at) * 1000)::float8,
              'updatedAt', (extract(epoch from updated_at) * 1000)::float8) as values
     from history_item`,
  );
  return rows.map((row) => ({ ...row, to: row.to ?? Infinity }));
}

const sorted = (ranges: readonly Range[]) =>
  ranges.toSorted((a, b) => (a.id === b.id ? a.version - b.version : a.id < b.id ? -1 : 1));
const expectRanges = async (events: readonly RecordedEvent[]) =>
  expect(sorted(await rangesInTable())).toEqual(sorted(rangesOf(events)));

test(`whatever the batches, each version has its range and its values (seed ${SEED})`, async () => {
  const random = seeded(SEED);
  const ids = Array.from({ length: 8 }, () => uuidv7());
  const versions = new Map<string, number>();
  let at = START;
  const made = Array.from({ length: 300 }, () => {
    const id = ids[Math.floor(random() * ids.length)]!;
    const version = (versions.get(id) ?? 0) + 1;
    versions.set(id, version);
    // The clock stands still, goes on, and is set back.
    at += random() < 0.3 ? 0 : random() < 0.15 ? -Math.floor(random() * 2_000) : Math.floor(random() * 400);
    const title = version === 1 ? { title: 't' } : {};
    return { id, version, at, data: { ...title, ...itemInput(random, ids) } };
  });
  const events = await log(made);
  for (let next = 0; next < events.length;) {
    const size = 1 + Math.floor(random() ** 2 * 40);
    await apply(events.slice(next, next + size));
    next += size;
  }
  await expectRanges(events);
  const overlaps = await database.asOwner(
    `select 1 from history_item a join history_item b on a.tenant_id = b.tenant_id and a.id = b.id and a.version < b.version
     where a.valid_to > b.valid_from or a.valid_from > a.valid_to`,
  );
  expect(overlaps).toEqual([]);
  await apply(events);
  await expectRanges(events);
});

test(`what the commands wrote is the newest row of the history (seed ${SEED})`, async () => {
  await randomHistory(new RecordCommands(SHOP, database.app), seeded(SEED), 200);
  await apply(await eventsInLog(database));
  for (const name of ['item', 'brand']) {
    const differences = await database.asOwner(
      `with newest as (select to_jsonb(h) - 'valid_from' - 'valid_to' as row from history_${name} h where valid_to = 'infinity'),
            live as (select to_jsonb(m) as row from model_${name} m)
       (select * from newest except select * from live) union all (select * from live except select * from newest)`,
    );
    expect(differences).toEqual([]);
    const [{ both }] = (await database.asOwner(
      `select count(distinct tenant_id)::int as both from history_${name}`,
    )) as [{ both: number }];
    expect(both).toBe(2);
  }
});

test('events that come after later ones of their record are put where they belong', async () => {
  const id = uuidv7();
  const events = await log([
    { id, version: 1, at: START, data: { title: 'a', price: 1 } },
    { id, version: 2, at: START + 1_000, data: { order: 'two' } },
    { id, version: 3, at: START + 2_000, data: { price: 3 } },
    { id, version: 4, at: START + 3_000, data: { title: 'd' }, kind: 'restored' },
    { id, version: 5, at: START + 4_000, data: { inStock: true } },
  ]);
  await apply([events[0]!, events[2]!]);
  await apply([events[3]!]);
  expect((await rangesInTable()).map(({ version }) => version).toSorted((a, b) => a - b)).toEqual([1, 3, 4]);
  await apply([events[1]!]);
  await expectRanges(events.slice(0, 4));
  await apply([events[4]!]);
  await expectRanges(events);
  await apply([events[1]!]);
  await expectRanges(events);
});

test('a record whose first event comes last has its whole history', async () => {
  const id = uuidv7();
  const events = await log([
    { id, version: 1, at: START, data: { title: 'a', price: 1 } },
    { id, version: 2, at: START + 1_000, data: { order: 'two' } },
  ]);
  await apply([events[1]!]);
  await apply([events[0]!]);
  await expectRanges(events);
});

test('a late event is opened before it is written', async () => {
  const id = uuidv7();
  const events = await log([
    { id, version: 1, at: START, data: { title: 'a', $sealed: 'x' } },
    { id, version: 2, at: START + 1_000, data: { order: 'two' } },
  ]);
  const codec: EventOpener = {
    decode: async (_tx, given) =>
      given.map((event) => ('$sealed' in event.data ? { ...event, data: { title: 'opened' } } : event)),
  };
  await apply([events[1]!], codec);
  await apply([events[0]!], codec);
  expect((await rangesInTable()).map(({ values }) => values['title'])).toEqual(['opened', 'opened']);
});

test('one that is set back in time, and one of the same moment, are valid for no time', async () => {
  const id = uuidv7();
  const events = await log([
    { id, version: 1, at: START, data: { title: 'a' } },
    { id, version: 2, at: START, data: { title: 'b' } },
    { id, version: 3, at: START + 1_000, data: { title: 'c' } },
    { id, version: 4, at: START + 500, data: { title: 'd' } },
  ]);
  await apply(events.slice(0, 3));
  await apply(events.slice(3));
  const validAt = async (at: number) =>
    (await rangesInTable()).filter(({ from, to }) => from <= at && at < to).map(({ version }) => version);
  expect(await validAt(START)).toEqual([2]);
  expect(await validAt(START + 700)).toEqual([2]);
  expect(await validAt(START + 1_000)).toEqual([4]);
});

test('long texts beside a field that changes often are written in parts', async () => {
  const id = uuidv7();
  const long = 'x'.repeat(200_000);
  const events = await log([
    { id, version: 1, at: START, data: { title: long } },
    ...Array.from({ length: 120 }, (_, i) => ({ id, version: i + 2, at: START + i, data: { price: i } })),
  ]);
  await apply(events);
  const [found] = await database.asOwner(
    `select count(*)::int as rows, min(length(title)) as shortest, sum(price)::int as prices from history_item`,
  );
  expect(found).toEqual({ rows: 121, shortest: 200_000, prices: (119 * 120) / 2 });
});

test('a value from when its field had another type is read as the type of today, or refused', async () => {
  const id = uuidv7();
  await apply(
    await log([{ id, version: 1, at: START, data: { title: 7, order: true, price: '12.5', inStock: 'yes' } }]),
  );
  const values = await database.asOwner(`select title, "order", price, in_stock from history_item`);
  expect(values).toEqual([{ title: '7', order: 'true', price: 12.5, in_stock: true }]);
  const [refused] = (await log([{ id: uuidv7(), version: 1, at: START, data: { title: 'a', price: 'much' } }])).slice(
    -1,
  );
  await expect(apply([refused!])).rejects.toMatchObject({ code: '22P02' });
});

test('tenants keep apart, also where ids are the same', async () => {
  const id = uuidv7();
  const both = [
    ...(await log([{ id, version: 1, at: START, data: { title: 'ours' } }])),
    ...(await log([{ id, version: 1, at: START, data: { title: 'theirs' } }], THEIRS)).slice(1),
  ];
  await apply(both);
  for (const [tenant, title] of [
    [OURS, 'ours'],
    [THEIRS, 'theirs'],
  ] as const) {
    expect(await database.app.transaction(tenant, (tx) => tx.query('select title from history_item'))).toEqual([
      { title },
    ]);
  }
  await expect(
    database.app.transaction(OURS, (tx) => tx.execute(`update history_item set title = 'x'`)),
  ).rejects.toThrow(/permission denied/);
});

test('the personal values of one record can be taken out of all its versions', async () => {
  const [id, other] = [uuidv7(), uuidv7()];
  await apply(
    await log([
      { id, version: 1, at: START, data: { title: 'a', contactMail: 'a@example.com' } },
      { id, version: 2, at: START + 1, data: { contactMail: 'b@example.com' } },
      { id: other, version: 1, at: START, data: { title: 'b', contactMail: 'c@example.com' } },
    ]),
  );
  const personal = {
    ...item,
    fields: item.fields.map((field) => ({
      ...field,
      pii: field.name === 'contactMail' ? ('personal' as const) : null,
    })),
  };
  await database.system.transaction((tx) =>
    erasePersonal(tx, personal, 'history_item', { tenant: OURS, id, version: 99 }),
  );
  expect(await database.asOwner('select title, contact_mail from history_item order by title, version')).toEqual([
    { title: 'a', contact_mail: null },
    { title: 'a', contact_mail: null },
    { title: 'b', contact_mail: 'c@example.com' },
  ]);
});
