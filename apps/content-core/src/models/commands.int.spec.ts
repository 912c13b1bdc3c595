import net from 'node:net';
import { announceAppended, eventStoreMigrations } from '@atomo-cc/event-store';
import { uuidv7 } from '@atomo-cc/kernel';
import { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import { openRedis } from '@atomo-cc/platform/redis';
import type { RecordValues } from '@atomo-cc/schema';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { anApi, aPrincipal, SHOP, SHOP_TENANTS, type Json, type TestApi } from '../testing/index.js';
import { RecordCommands, type RecordCommandsOptions, type CommandAnswer } from './commands.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

const [OURS, THEIRS] = SHOP_TENANTS;
const FIELDS = 'id version createdAt updatedAt title contactMail price inStock arrivesOn size brandId order';
const CREATE = `mutation ($input: CreateItemInput!) { createItem(input: $input) { ${FIELDS} } }`;
const UPDATE = `mutation ($id: ID!, $input: UpdateItemInput!, $expectedVersion: Int) {
  updateItem(id: $id, input: $input, expectedVersion: $expectedVersion) { ${FIELDS} }
}`;

const CREATE_ONCE = `mutation ($input: CreateItemInput!, $key: String) { createItem(input: $input, idempotencyKey: $key) { ${FIELDS} } }`;
const UPDATE_ONCE = `mutation ($id: ID!, $input: UpdateItemInput!, $expectedVersion: Int, $key: String) {
  updateItem(id: $id, input: $input, expectedVersion: $expectedVersion, idempotencyKey: $key) { ${FIELDS} }
}`;

let database: TestDatabase;
let api: TestApi;

beforeAll(async () => {
  database = await aDatabase(eventStoreMigrations);
  await createModelTables(database.url, SHOP);
  api = await anApi([modelsApi(SHOP, database.app)]);
});

afterAll(async () => {
  await api?.close();
  await database?.drop();
});

afterEach(() => jest.restoreAllMocks());

interface Logged {
  type: string;
  stream_version: number;
  data: Record<string, unknown>;
  metadata: Record<string, unknown>;
  tenant_id: string;
}

const eventsOf = (id: string) =>
  database.asOwner<Logged>(
    'select type, stream_version, data, metadata, tenant_id from event_log where stream = $1 order by position',
    [`Item-${id}`],
  );
const rowOf = async (id: string) =>
  (await database.asOwner<{ row: Json }>('select to_jsonb(r) as row from model_item r where id = $1', [id]))[0]?.row;
const counts = async () => {
  const [found] = await database.asOwner<{ events: number; rows: number; streams: number }>(
    `select (select count(*)::int from event_log) as events, (select count(*)::int from model_item) as rows, (select count(*)::int from event_streams) as streams`,
  );
  return found!;
};
const create = async (input: object) => (await api.data(CREATE, { input: { title: 'Lamp', ...input } })).createItem;
const update = async (id: string, input: object, expectedVersion: number | null = null) =>
  (await api.data(UPDATE, { id, input, expectedVersion })).updateItem;

describe('create', () => {
  test('appends the event and writes the row', async () => {
    const made = await create({
      contactMail: ' Ada@Example.com ',
      price: 0.1,
      inStock: false,
      arrivesOn: '2026-02-28',
      size: 'Large',
      order: null,
    });
    expect(made).toMatchObject({
      version: 1,
      title: 'Lamp',
      contactMail: 'ada@example.com',
      price: 0.1,
      inStock: false,
      arrivesOn: '2026-02-28',
      size: 'Large',
      brandId: null,
      order: null,
    });
    expect(made.updatedAt).toBe(made.createdAt);
    const [event, ...others] = await eventsOf(made.id);
    expect(others).toEqual([]);
    expect(event).toMatchObject({
      type: 'Item.created',
      stream_version: 1,
      tenant_id: OURS,
      data: {
        title: 'Lamp',
        contactMail: 'ada@example.com',
        price: 0.1,
        inStock: false,
        arrivesOn: '2026-02-28',
        size: 'Large',
        order: null,
      },
      metadata: {
        actor: expect.stringMatching(/^user:/),
        correlationId: expect.any(String),
        causationId: expect.any(String),
      },
    });
    expect(await rowOf(made.id)).toMatchObject({
      tenant_id: OURS,
      version: 1,
      arrives_on: '2026-02-28',
      contact_mail: 'ada@example.com',
    });
  });

  test('lists every broken rule and stores nothing', async () => {
    const before = await counts();
    const input = { title: ' ', price: -1, contactMail: 'nobody', brandId: uuidv7() };
    const { errors } = await api.ask(CREATE, { input });
    expect(errors).toMatchObject([
      {
        extensions: {
          code: 'VALIDATION_ERROR',
          faults: [{ path: 'title' }, { path: 'contactMail' }, { path: 'price' }, { path: 'brandId' }],
        },
      },
    ]);
    expect(errors![0]!.message).toContain('there is no Brand with this id');
    expect(await counts()).toEqual(before);
  });

  test.each([
    ['a day that does not exist', { title: 'x', arrivesOn: '2026-02-30' }],
    ['a word that the enum lacks', { title: 'x', size: 'Huge' }],
    ['a text for a number', { title: 'x', price: '1' }],
    ['an unknown field', { title: 'x', password: 'x' }],
    ['no title', {}],
  ])('refuses %s before anything is asked of the database', async (_name, input) => {
    const { errors, data } = await api.ask(CREATE, { input });
    expect(errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR' } }]);
    expect(data ?? null).toBeNull();
  });

  test('a failure after the append leaves neither event nor row nor stream', async () => {
    const before = await counts();
    const send = Tx.prototype.send;
    let appended: Promise<number> | undefined;
    jest.spyOn(Tx.prototype, 'send').mockImplementation(function (this: Tx, sql, parameters) {
      send.call(this, sql, parameters);
      if (!sql.includes('insert into event_log')) return;
      appended = this.query(`select 1 from event_log where xmin::text = txid_current()::text`).then(
        ({ length }) => length,
      );
      send.call(this, `select 'secrets' || 1 / 0`);
    });
    const { errors } = await api.ask(CREATE, { input: { title: 'Lamp' } });
    expect(await appended).toBe(1);
    expect(errors).toMatchObject([{ extensions: { code: 'INTERNAL_ERROR' } }]);
    expect(JSON.stringify(errors)).not.toContain('secrets');
    expect(await counts()).toEqual(before);
  });

  test('a failure while the answer is read does not undo what is committed; the same key answers it', async () => {
    const before = await counts();
    jest.spyOn(AppDatabase.prototype, 'read').mockRejectedValue(new Error('gone'));
    const repeatable = { input: { title: 'Lamp' }, key: uuidv7() };
    const withBrand = CREATE_ONCE.replace('brandId', 'brandId brand { id }');
    expect((await api.ask(withBrand, repeatable)).errors).toMatchObject([{ extensions: { code: 'INTERNAL_ERROR' } }]);
    jest.restoreAllMocks();
    expect((await api.data(CREATE_ONCE, repeatable)).createItem).toMatchObject({ version: 1, title: 'Lamp' });
    expect(await counts()).toEqual({ events: before.events + 1, rows: before.rows + 1, streams: before.streams + 1 });
  });

  test('writes the audit row', async () => {
    const made = await create({ price: 1, order: null });
    expect(
      await database.asOwner(
        'select tenant_id, actor, action, stream_version, fields from audit_log where stream = $1',
        [`Item-${made.id}`],
      ),
    ).toEqual([
      {
        tenant_id: OURS,
        actor: `user:${OURS}`,
        action: 'Item.created',
        stream_version: 1,
        fields: ['order', 'price', 'title'],
      },
    ]);
  });
});

describe('the answer of a mutation', () => {
  const READ = `query ($id: ID!) { item(id: $id) { ${FIELDS} } }`;
  const read = async (id: string) => (await api.data(READ, { id })).item;

  test.each<[string, object]>([
    ['texts', { title: ' Lämp "x" \\ 👩‍🚀\n', order: '' }],
    ['e-mail', { contactMail: ' Ada@Example.com ' }],
    ['numbers', { price: 0.1 }],
    ['great numbers', { price: 1e21 }],
    ['small numbers', { price: 5e-324 }],
    ['nothing below nothing', { price: -0 }],
    ['whole numbers', { price: 3 }],
    ['true', { inStock: true }],
    ['false', { inStock: false }],
    ['days', { arrivesOn: '0001-01-01' }],
    ['late days', { arrivesOn: '9999-12-31' }],
    ['words', { size: 'Large' }],
    [
      'nulls',
      { contactMail: null, price: null, inStock: null, arrivesOn: null, size: null, brandId: null, order: null },
    ],
  ])('is what a read answers: %s', async (_name, input) => {
    const brandId = (await api.data('mutation { createBrand(input: { name: "acme" }) { id } }')).createBrand.id;
    const reads = jest.spyOn(AppDatabase.prototype, 'read');
    const made = await create({ brandId, ...input });
    expect(made.createdAt).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    const changed = await update(made.id, { price: 77, ...input, title: 'Changed' });
    const unchanged = await update(made.id, { title: 'Changed' });
    // Nothing has been read for these three.
    expect(reads).not.toHaveBeenCalled();
    reads.mockRestore();
    expect(await read(made.id)).toEqual(changed);
    expect(unchanged).toEqual(changed);
    expect(changed.createdAt).toBe(made.createdAt);
    const again = await update(made.id, { title: made.title, price: made.price });
    expect({ ...again, version: 1, updatedAt: made.updatedAt }).toEqual(made);
  });

  test('is read where it asks for related records', async () => {
    const brandId = (await api.data('mutation { createBrand(input: { name: "acme" }) { id } }')).createBrand.id;
    const document = `mutation ($input: CreateItemInput!) { createItem(input: $input) { same: id ...F } } fragment F on Item { brand { name } }`;
    const { createItem } = await api.data(document, { input: { title: 'Lamp', brandId } });
    expect(createItem).toEqual({ same: expect.any(String), brand: { name: 'acme' } });
  });

  test('of commands on one record that share a transaction is what each has done', async () => {
    const made = await create({ price: 0 });
    const answers = await Promise.all([1, 2, 3].map((price) => update(made.id, { price })));
    expect(answers.map(({ price }) => price)).toEqual([1, 2, 3]);
    // Three requests come in any order.
    expect(answers.map(({ version }) => version).toSorted((a, b) => a - b)).toEqual([2, 3, 4]);
  });
});

describe('commands', () => {
  const Item = SHOP.models.find(({ name }) => name === 'Item')!;
  const context = { principal: aPrincipal(OURS), requestId: 'r', address: '192.0.2.7' };
  const command = { model: Item, idempotencyKey: null, context, expectedVersion: null };

  test('put the address of the request into the metadata and the audit row', async () => {
    const commands = new RecordCommands(SHOP, database.app);
    const { id } = await commands.create({ ...command, input: { title: 'Lamp' } });
    const [event] = await eventsOf(id);
    expect(event!.metadata).toMatchObject({ address: '192.0.2.7' });
    expect(await database.asOwner('select address from audit_log where stream = $1', [`Item-${id}`])).toEqual([
      { address: '192.0.2.7' },
    ]);
    expect(Object.keys((await eventsOf((await create({})).id))[0]!.metadata).sort()).toEqual([
      'actor',
      'address',
      'causationId',
      'correlationId',
    ]);
  });

  test('are encoded for the log alone, in the transaction', async () => {
    const codec: RecordCommandsOptions['codec'] = {
      sealState: async (_tx, _tenant, _stream, values) => values,
      renewKey: async () => 0,
      encode: async (tx, tenant, appends) => {
        expect(await tx.query(`select current_setting('app.tenant_id') as tenant`)).toEqual([{ tenant }]);
        return appends.map((append) => ({
          ...append,
          events: append.events.map((event) => ({ ...event, data: { $sealed: { fields: Object.keys(event.data) } } })),
        }));
      },
    };
    const commands = new RecordCommands(SHOP, database.app, { codec });
    const { id, record } = await commands.create({ ...command, input: { title: 'Secret', price: 2 } });
    expect((await eventsOf(id))[0]!.data).toEqual({ $sealed: { fields: ['title', 'price'] } });
    expect(await rowOf(id)).toMatchObject({ title: 'Secret', price: 2 });
    expect(record!.values).toEqual({ title: 'Secret', price: 2 });
  });

  test('tell of a commit that has appended something, and of no other; what comes of it is not theirs', async () => {
    const told: string[] = [];
    const commands = new RecordCommands(SHOP, database.app, {
      onAppended: (tenant) => {
        told.push(tenant);
        return told.length % 2 ? Promise.reject(new Error('no Redis')) : undefined;
      },
    });
    const { id } = await commands.create({ ...command, input: { title: 'Lamp' } });
    expect(told).toEqual([OURS]);
    await commands.update({ ...command, id, input: { title: 'Lamp' } });
    await expect(commands.update({ ...command, id: uuidv7(), input: {} })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(told).toEqual([OURS]);
    await commands.update({ ...command, id, input: { title: 'Other' } });
    expect(told).toEqual([OURS, OURS]);
    const broken = new RecordCommands(SHOP, database.app, {
      onAppended: () => {
        throw new Error('no Redis');
      },
    });
    expect((await broken.create({ ...command, input: { title: 'Lamp' } })).record).toMatchObject({ version: 1 });
  });

  test.each(['refuses connections', 'takes them and answers nothing'])(
    'are as quick as ever while Redis %s',
    async (how) => {
      const silent = net.createServer(() => undefined);
      await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
      const { port } = silent.address() as net.AddressInfo;
      if (how === 'refuses connections') await new Promise((resolve) => silent.close(resolve));
      const redis = openRedis(`redis://127.0.0.1:${port}`, 'command', () => undefined);
      try {
        let announced = 0;
        const commands = new RecordCommands(SHOP, database.app, {
          onAppended: (tenant) => {
            announced += 1;
            announceAppended(redis, tenant);
          },
        });
        const began = performance.now();
        const created = await Promise.all(
          Array.from({ length: 50 }, (_, n) => commands.create({ ...command, input: { title: `Lamp ${n}` } })),
        );
        // Far below the 5 s after which a command of Redis is given up.
        expect(performance.now() - began).toBeLessThan(4_000);
        expect(created.every(({ record }) => record?.version === 1)).toBe(true);
        expect(announced).toBeGreaterThan(0);
      } finally {
        redis.disconnect();
        silent.close();
      }
    },
  );

  test('that say more than the log takes are refused, and fail no neighbour', async () => {
    const wide = {
      ...SHOP,
      models: SHOP.models.map((model) =>
        model.name === 'Item'
          ? {
              ...model,
              fields: model.fields.map((field) => ({ ...field, ...(field.maxLength && { maxLength: 1e7 }) })),
            }
          : model,
      ),
    };
    const transaction = jest.spyOn(database.app, 'transaction');
    const model = wide.models.find(({ name }) => name === 'Item')!;
    const commands = new RecordCommands(wide, database.app);
    const results = await Promise.allSettled(
      [1, 2, 3].map((n) => commands.create({ ...command, model, input: { title: 'x'.repeat(n === 2 ? 2 ** 20 : n) } })),
    );
    expect(results).toMatchObject([
      { status: 'fulfilled' },
      { status: 'rejected', reason: { code: 'VALIDATION_ERROR', message: expect.stringContaining('1048576') } },
      { status: 'fulfilled' },
    ]);
    expect(transaction).toHaveBeenCalledTimes(1);
  });

  test('that encoded say more than the log takes are refused alone, too', async () => {
    const codec: RecordCommandsOptions['codec'] = {
      sealState: async (_tx, _tenant, _stream, values) => values,
      renewKey: async () => 0,
      encode: async (_tx, _tenant, appends) =>
        appends.map((append) => ({
          ...append,
          events: append.events.map((event) =>
            event.data['title'] === 'Poison' ? { ...event, data: { deep: ['\0'] } } : event,
          ),
        })),
    };
    const commands = new RecordCommands(SHOP, database.app, { codec });
    const results = await Promise.allSettled(
      ['a', 'Poison', 'b'].map((title) => commands.create({ ...command, input: { title } })),
    );
    expect(results.map((result) => (result.status === 'rejected' ? result.reason.code : 'done'))).toEqual([
      'done',
      'VALIDATION_ERROR',
      'done',
    ]);
  });

  describe('restore', () => {
    const commands = () => new RecordCommands(SHOP, database.app);
    const restore = (id: string, values: RecordValues, more: object = {}) =>
      commands().restore({ ...command, id, earlier: { version: 1, values }, ...more });

    test('appends what differs as an event of its own that names the version', async () => {
      const made = await create({ price: 1, order: 'x' });
      await update(made.id, { price: 2, order: null });
      const { record } = await restore(made.id, { title: 'Lamp', price: 1, order: 'x' }, { expectedVersion: 2 });
      expect(record).toMatchObject({ version: 3, values: { title: 'Lamp', price: 1, order: 'x' } });
      const event = (await eventsOf(made.id)).at(-1)!;
      expect(event).toMatchObject({ type: 'Item.restored', stream_version: 3, data: { price: 1, order: 'x' } });
      expect(event.metadata).toMatchObject({ restoredVersion: 1 });
      expect(await rowOf(made.id)).toMatchObject({ version: 3, price: 1, order: 'x' });
      expect((await restore(made.id, { price: 1 })).record).toMatchObject({ version: 3 });
      expect(await eventsOf(made.id)).toHaveLength(3);
    });

    test('is held to the rules of an update', async () => {
      const made = await create({ price: 1 });
      const codeOf = (values: RecordValues, more: object = {}) =>
        restore(made.id, values, more).then(
          () => 'done',
          (error: { code: string }) => error.code,
        );
      expect(await codeOf({ price: -1 })).toBe('VALIDATION_ERROR');
      expect(await codeOf({ title: null })).toBe('VALIDATION_ERROR');
      expect(await codeOf({ brandId: uuidv7() })).toBe('VALIDATION_ERROR');
      expect(await codeOf({ price: 2 }, { expectedVersion: 7 })).toBe('CONFLICT');
      expect(await codeOf({ price: 2 }, { id: uuidv7() })).toBe('NOT_FOUND');
      expect(await eventsOf(made.id)).toHaveLength(1);
    });

    test('with an idempotency key takes effect once, and is not another command', async () => {
      const made = await create({ price: 1 });
      await update(made.id, { price: 2 });
      const key = uuidv7();
      const first = await restore(made.id, { price: 1 }, { idempotencyKey: key });
      expect(first.record).toMatchObject({ version: 3 });
      expect(await restore(made.id, { price: 1 }, { idempotencyKey: key })).toEqual({ id: made.id, record: null });
      await expect(
        restore(made.id, { price: 1 }, { idempotencyKey: key, earlier: { version: 2, values: { price: 1 } } }),
      ).rejects.toMatchObject({
        code: 'CONFLICT',
      });
      expect(await eventsOf(made.id)).toHaveLength(3);
    });
  });
});

describe('an idempotency key', () => {
  test('makes a repeat answer what the first one did, also when both are sent at once', async () => {
    const before = await counts();
    const command = { input: { title: 'Once' }, key: uuidv7() };
    const answers = await Promise.all(Array.from({ length: 8 }, () => api.data(CREATE_ONCE, command)));
    answers.push(await api.data(CREATE_ONCE, command));
    expect(new Set(answers.map(({ createItem }: Json) => createItem.id)).size).toBe(1);
    expect((await counts()).events).toBe(before.events + 1);
  });

  test('is the same across processes that commit at the same time', async () => {
    const other = await anApi([modelsApi(SHOP, database.app)]);
    const commands = Array.from({ length: 30 }, () => ({ input: { title: 'Once' }, key: uuidv7() }));
    const both = await Promise.all(
      commands.flatMap((command) => [api.data(CREATE_ONCE, command), other.data(CREATE_ONCE, command)]),
    );
    await other.close();
    expect(new Set(both.map(({ createItem }: Json) => createItem.id)).size).toBe(commands.length);
  });

  test('with another command is refused and changes nothing', async () => {
    const key = uuidv7();
    const made = (await api.data(CREATE_ONCE, { input: { title: 'Lamp' }, key })).createItem;
    const before = await counts();
    for (const [document, variables] of [
      [CREATE_ONCE, { input: { title: 'Other' }, key }],
      [UPDATE_ONCE, { id: made.id, input: { title: 'Lamp' }, key }],
    ] as const) {
      expect((await api.ask(document, variables)).errors).toMatchObject([{ extensions: { code: 'CONFLICT' } }]);
    }
    expect(await counts()).toEqual(before);
  });

  test('of a refused command is free again', async () => {
    const key = uuidv7();
    expect((await api.ask(CREATE_ONCE, { input: { title: '' }, key })).errors).toHaveLength(1);
    expect((await api.data(CREATE_ONCE, { input: { title: 'Lamp' }, key })).createItem.version).toBe(1);
  });

  test.each(['', 'x'.repeat(201), 'a\0b'])('%j is no key', async (key) => {
    expect((await api.ask(CREATE_ONCE, { input: { title: 'Lamp' }, key })).errors).toMatchObject([
      { extensions: { code: 'VALIDATION_ERROR' } },
    ]);
  });

  test('makes an update take effect once', async () => {
    const made = await create({ price: 1 });
    const command = { id: made.id, input: { price: 2 }, expectedVersion: 1, key: uuidv7() };
    expect((await api.data(UPDATE_ONCE, command)).updateItem).toMatchObject({ version: 2, price: 2 });
    expect((await api.data(UPDATE_ONCE, command)).updateItem).toMatchObject({ version: 2, price: 2 });
    expect(await eventsOf(made.id)).toHaveLength(2);
  });
});

describe('commands that arrive together', () => {
  test('share transactions, keep their order on a record, and refuse only those at fault', async () => {
    const hot = await create({ price: 0 });
    // The first transactions wait until all commands are there, so what follows does not depend on how fast anything is.
    const { promise: allAreThere, resolve: letGo } = Promise.withResolvers<void>();
    let there = 0;
    for (const kind of ['create', 'update'] as const) {
      const carryOut = RecordCommands.prototype[kind] as (
        this: RecordCommands,
        command: never,
      ) => Promise<CommandAnswer>;
      jest.spyOn(RecordCommands.prototype, kind).mockImplementation(function (this: RecordCommands, command) {
        if ((there += 1) === 120) letGo();
        return carryOut.call(this, command as never);
      });
    }
    const transact = database.app.transaction.bind(database.app);
    const transaction = jest.spyOn(database.app, 'transaction').mockImplementation(async (tenant, work) => {
      await allAreThere;
      return transact(tenant, work);
    });
    const asked = Array.from({ length: 120 }, (_, n) => {
      if (n % 10 === 3) return api.ask(CREATE, { input: { title: '' } });
      if (n % 10 === 6) return api.ask(UPDATE, { id: uuidv7(), input: { price: 1 } });
      if (n % 10 === 9) return api.ask(UPDATE, { id: hot.id, input: { price: n }, expectedVersion: 1_000 });
      if (n % 2 === 0) return api.ask(UPDATE, { id: hot.id, input: { price: n + 1 } });
      return api.ask(CREATE, { input: { title: `Lamp ${n}` } });
    });
    const answers = await Promise.all(asked);
    const codes = answers.map(({ errors }) => errors?.[0]?.extensions?.code ?? 'done');
    expect(codes).toEqual(
      asked.map((_, n) => ({ 3: 'VALIDATION_ERROR', 6: 'NOT_FOUND', 9: 'CONFLICT' })[(n % 10) as 3] ?? 'done'),
    );
    const events = await eventsOf(hot.id);
    expect(events.map((event) => event.stream_version)).toEqual(events.map((_, n) => n + 1));
    expect((await rowOf(hot.id)).version).toBe(events.length);
    expect((await rowOf(hot.id)).price).toBe(events.at(-1)?.data['price']);
    expect(transaction.mock.calls.length).toBeLessThanOrEqual(4);
  });

  test('one that the database refuses fails no neighbour', async () => {
    const send = Tx.prototype.send;
    jest.spyOn(Tx.prototype, 'send').mockImplementation(function (this: Tx, sql, parameters) {
      if (sql.includes('insert into model_item') && parameters?.some((each) => String(each).includes('Poison'))) {
        send.call(this, 'select 1 / 0');
      }
      send.call(this, sql, parameters);
    });
    const titles = Array.from({ length: 40 }, (_, n) => (n === 17 ? 'Poison' : `Lamp ${n}`));
    const answers = await Promise.all(titles.map((title) => api.ask(CREATE, { input: { title } })));
    expect(answers.map(({ errors }) => errors?.[0]?.extensions?.code ?? 'done')).toEqual(
      titles.map((title) => (title === 'Poison' ? 'INTERNAL_ERROR' : 'done')),
    );
  });
});

describe('update', () => {
  test('changes and logs only the fields that differ', async () => {
    const made = await create({ price: 1, order: 'x', inStock: true });
    const changed = await update(made.id, { price: 2, order: 'x' });
    expect(changed).toEqual({ ...made, version: 2, price: 2, updatedAt: changed.updatedAt });
    expect(changed.updatedAt >= made.updatedAt).toBe(true);
    const [, event] = await eventsOf(made.id);
    expect(event).toMatchObject({ type: 'Item.updated', stream_version: 2, data: { price: 2 } });
    expect(Object.keys(event!.data)).toEqual(['price']);
  });

  test('what changes nothing appends nothing', async () => {
    const made = await create({ price: 0.1, arrivesOn: '2026-02-28', inStock: false, contactMail: 'ada@example.com' });
    for (const input of [
      {},
      { price: 0.1 },
      { arrivesOn: '2026-02-28', inStock: false, title: 'Lamp', order: null, contactMail: 'ADA@example.com' },
    ]) {
      expect(await update(made.id, input)).toEqual(made);
    }
    expect(await eventsOf(made.id)).toHaveLength(1);
  });

  test('null empties a field, but no required one', async () => {
    const brand = (await api.data('mutation { createBrand(input: { name: "acme" }) { id } }')).createBrand.id;
    const made = await create({ price: 1, arrivesOn: '2026-02-28', brandId: brand, size: 'Small' });
    expect(made.brandId).toBe(brand);
    expect(await update(made.id, { price: null, arrivesOn: null, brandId: null, size: null })).toMatchObject({
      price: null,
      arrivesOn: null,
      brandId: null,
      size: null,
      version: 2,
    });
    const { errors } = await api.ask(UPDATE, { id: made.id, input: { title: null } });
    expect(errors).toMatchObject([{ extensions: { code: 'VALIDATION_ERROR', faults: [{ path: 'title' }] } }]);
  });

  test('on another version than expected is a conflict that names the current one', async () => {
    const made = await create({});
    await update(made.id, { price: 1 }, 1);
    const { errors } = await api.ask(UPDATE, { id: made.id, input: { price: 2 }, expectedVersion: 1 });
    expect(errors).toMatchObject([{ extensions: { code: 'CONFLICT', currentVersion: 2 } }]);
    expect(await update(made.id, { price: 2 }, 2)).toMatchObject({ version: 3, price: 2 });
    // Also when the change would change nothing: the caller's picture is old.
    expect((await api.ask(UPDATE, { id: made.id, input: { price: 2 }, expectedVersion: 2 })).errors).toMatchObject([
      { extensions: { code: 'CONFLICT' } },
    ]);
  });

  test.each([
    ['an id nobody has', uuidv7()],
    ['no id', 'x'],
  ])('of %s: not found', async (_name, id) => {
    expect((await api.ask(UPDATE, { id, input: { price: 1 } })).errors).toMatchObject([
      { extensions: { code: 'NOT_FOUND' } },
    ]);
  });

  test('two at the same time keep one another’s fields', async () => {
    const made = await create({});
    const fields = {
      price: 7,
      order: 'x',
      inStock: true,
      arrivesOn: '2026-02-28',
      size: 'Large',
      contactMail: 'ada@example.com',
    };
    await Promise.all(Object.entries(fields).map(([name, value]) => update(made.id, { [name]: value })));
    expect((await api.data(`query ($id: ID!) { item(id: $id) { ${FIELDS} } }`, { id: made.id })).item).toMatchObject({
      ...fields,
      version: 7,
    });
    expect((await eventsOf(made.id)).map((event) => event.stream_version)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  test('of two that expect the same version, one wins', async () => {
    const made = await create({});
    const answers = await Promise.all(
      [1, 2, 3].map((price) => api.ask(UPDATE, { id: made.id, input: { price }, expectedVersion: 1 })),
    );
    const lost = answers.flatMap(({ errors }) => errors ?? []);
    expect(lost.map(({ extensions }) => [extensions!['code'], extensions!['currentVersion']])).toEqual([
      ['CONFLICT', 2],
      ['CONFLICT', 2],
    ]);
  });

  test('records that come to refer to each other at the same time do not deadlock', async () => {
    const names = ['a', 'b'];
    for (let round = 0; round < 20; round += 1) {
      const [a, b] = await Promise.all(
        names.map(
          async (name) =>
            (await api.data('mutation ($name: String!) { createBrand(input: { name: $name }) { id } }', { name }))
              .createBrand.id,
        ),
      );
      const refer = (id: string, parentId: string) =>
        api.ask(
          'mutation ($id: ID!, $parentId: ID!) { updateBrand(id: $id, input: { parentId: $parentId }) { parentId } }',
          { id, parentId },
        );
      const answers = await Promise.all([refer(a, b), refer(b, a)]);
      expect(answers.flatMap(({ errors }) => errors ?? [])).toEqual([]);
    }
  });
});

describe('a day of the calendar stays the same day', () => {
  const before = process.env['TZ'];
  afterEach(() => {
    if (before === undefined) delete process.env['TZ'];
    else process.env['TZ'] = before;
  });

  test.each(['Pacific/Kiritimati', 'Pacific/Pago_Pago', 'America/Sao_Paulo', 'UTC'])(
    'on a machine in %s',
    async (zone) => {
      process.env['TZ'] = zone;
      for (const day of ['2026-01-01', '1900-02-28', '0001-01-01', '9999-12-31', '2018-11-04']) {
        const made = await create({ arrivesOn: day });
        expect(made.arrivesOn).toBe(day);
        // A change of something else must not take the day for changed.
        const changed = await update(made.id, { price: 5, arrivesOn: day });
        expect(changed.arrivesOn).toBe(day);
        expect((await eventsOf(made.id)).at(-1)!.data).toEqual({ price: 5 });
        const { items } = await api.data(
          'query ($day: Date!, $id: ID!) { items(where: { arrivesOn: { equals: $day }, id: { equals: $id } }) { totalCount } }',
          { day, id: made.id },
        );
        expect(items.totalCount).toBe(1);
      }
    },
  );

  test('and a moment the same moment, also where the session has a zone of its own', async () => {
    const [{ name }] = (await database.asOwner<{ name: string }>('select current_database() as name')) as [
      { name: string },
    ];
    await database.asOwner(`alter database ${name} set timezone = 'Asia/Kathmandu'`);
    const { openAppDatabase } = await import('@atomo-cc/platform/postgres');
    const elsewhere = await openAppDatabase({ url: database.url, service: 'test' });
    const there = await anApi([modelsApi(SHOP, elsewhere)]);
    try {
      const made = await create({ arrivesOn: '2026-02-28' });
      const query = `query ($id: ID!, $at: DateTime!) { item(id: $id) { createdAt arrivesOn } items(where: { id: { equals: $id }, createdAt: { equals: $at } }) { totalCount } }`;
      const seen = await there.data(query, { id: made.id, at: made.createdAt });
      expect(seen).toEqual({ item: { createdAt: made.createdAt, arrivesOn: '2026-02-28' }, items: { totalCount: 1 } });
      expect(Math.abs(Date.parse(made.createdAt) - Date.now())).toBeLessThan(60_000);
    } finally {
      await there.close();
      await elsewhere.close();
    }
  });
});

describe('another tenant', () => {
  test('neither reads, nor changes, nor refers to what is not its own', async () => {
    const brand = (await api.data('mutation { createBrand(input: { name: "acme" }) { id } }')).createBrand.id;
    const made = await create({ brandId: brand });
    expect(
      await api.data('query ($id: ID!) { item(id: $id) { id } items { nodes { id } } }', { id: made.id }, THEIRS),
    ).toEqual({ item: null, items: { nodes: [] } });
    expect((await api.ask(UPDATE, { id: made.id, input: { title: 'stolen' } }, THEIRS)).errors).toMatchObject([
      { extensions: { code: 'NOT_FOUND' } },
    ]);
    expect((await api.ask(CREATE, { input: { title: 'x', brandId: brand } }, THEIRS)).errors).toMatchObject([
      { extensions: { faults: [{ path: 'brandId' }] } },
    ]);
    expect(await rowOf(made.id)).toMatchObject({ title: 'Lamp', version: 1 });
  });
});

describe('tables of models', () => {
  test('making them again changes nothing, and a new field gets its column', async () => {
    const made = await create({ price: 3 });
    await createModelTables(database.url, SHOP);
    const wider = {
      ...SHOP,
      models: SHOP.models.map((model) =>
        model.name === 'Brand'
          ? { ...model, fields: [...model.fields, { ...model.fields[0]!, name: 'motto', required: false }] }
          : model,
      ),
    };
    await Promise.all([createModelTables(database.url, wider), createModelTables(database.url, wider)]);
    const columns = await database.asOwner(
      `select 1 from information_schema.columns where table_name = 'model_brand' and column_name = 'motto'`,
    );
    expect(columns).toHaveLength(1);
    expect(await rowOf(made.id)).toMatchObject({ price: 3 });
  });

  test('row-level security holds for them, and nobody who serves requests may delete', async () => {
    const [table] = await database.asOwner(
      `select relrowsecurity, relforcerowsecurity from pg_class where relname = 'model_item'`,
    );
    expect(table).toEqual({ relrowsecurity: true, relforcerowsecurity: true });
    await expect(database.app.transaction(OURS, (tx) => tx.execute('delete from model_item'))).rejects.toMatchObject({
      code: '42501',
    });
  });
});

test('an idempotency key belongs to one tenant', async () => {
  const command = { input: { title: 'Lamp' }, key: uuidv7() };
  const ours = (await api.data(CREATE_ONCE, command)).createItem;
  const theirs = (await api.data(CREATE_ONCE, command, THEIRS)).createItem;
  expect(theirs.id).not.toBe(ours.id);
});
