import { eventStoreMigrations, verifyLog } from '@atomo-cc/event-store';
import { uuidv7 } from '@atomo-cc/kernel';
import { migrate, openAppDatabase, openSystemDatabase, type AppDatabase } from '@atomo-cc/platform/postgres';
import { defineSchema, text, type SchemaDefinition } from '@atomo-cc/schema';
import {
  aCable,
  aDatabase,
  anOwnPostgres,
  aSeed,
  eventually,
  seeded,
  type Cable,
  type CutAt,
  type OwnPostgres,
  type TestDatabase,
} from '@atomo-cc/testing';
import { anApi, aPrincipal, SHOP_TENANTS } from '../testing/index.js';
import { RecordCommands } from './commands.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

// What is lost, doubled or half-written when Postgres, its disk or the way to it fails: nothing.

const DECLARED = defineSchema({ models: { Note: { fields: { title: text().required(), body: text() } } } });
/** Longer texts than a schema may allow, so that it is the log's own limit that is met. */
const NOTES: SchemaDefinition = {
  ...DECLARED,
  models: DECLARED.models.map((model) => ({
    ...model,
    fields: model.fields.map((field) => (field.name === 'body' ? { ...field, maxLength: 8_000_000 } : field)),
  })),
};
const [Note] = NOTES.models;
const [TENANT] = SHOP_TENANTS;
const context = { principal: aPrincipal(TENANT), requestId: uuidv7() };

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(90_000);

const NO_ROOM = 'No room or resources in the database; nothing was written. Try again later.';
const NO_ANSWER = 'The database does not answer; nothing was written. Try again later.';
const OPEN = 'It is open whether it was written. Send it again with the same idempotencyKey: it takes effect once.';
const OPEN_WITHOUT_KEY = 'It is open whether it was written. Look whether it took effect before you send it again.';
const WRITTEN_OR_NOT = new RegExp([NO_ROOM, NO_ANSWER, OPEN].join('|'));

/** The end of one command, as its caller sees it. */
type Outcome = { readonly id: string } | { readonly error: unknown };

const createNote = (commands: RecordCommands, title: string, body = ''): Promise<Outcome> =>
  commands.create({ model: Note!, input: { title, body }, idempotencyKey: `key ${title}`, context }).then(
    ({ id }) => ({ id }),
    (error: unknown) => ({ error }),
  );

/** How often each title is in the rows and in the log, and under which id. */
async function notes(system: { url: string } | TestDatabase, titles: readonly string[]) {
  const database = await openSystemDatabase({ url: system.url, service: 'test', poolSize: 1 });
  try {
    return await database.transaction(async (tx) => {
      // The owner's rights: rows of models are not the system role's to read.
      await tx.execute('reset role');
      const rows = await tx.query<{ title: string; id: string }>('select title, id from model_note');
      const events = await tx.query<{ title: string; stream: string }>(
        `select data->>'title' as title, stream from event_log where type = 'Note.created'`,
      );
      return titles.map((title) => ({
        title,
        rows: rows.filter((row) => row.title === title).map(({ id }) => id),
        events: events.filter((event) => event.title === title).map(({ stream }) => stream.slice('Note-'.length)),
      }));
    });
  } finally {
    await database.close();
  }
}

/** Each title is there once, as an event and as a row, under the id that a repeat of its command answers. */
async function expectOnce(url: string, commands: RecordCommands, outcomes: ReadonlyMap<string, Outcome>) {
  const repeated = new Map<string, string>();
  await Promise.all(
    [...outcomes].map(async ([title, outcome]) => {
      const again = await createNote(commands, title);
      if ('error' in again) throw again.error;
      if ('id' in outcome) expect([title, again.id]).toEqual([title, outcome.id]);
      repeated.set(title, again.id);
    }),
  );
  for (const { title, rows, events } of await notes({ url }, [...repeated.keys()])) {
    const id = repeated.get(title);
    expect({ title, rows, events }).toEqual({ title, rows: [id], events: [id] });
  }
}

describe('Postgres that is restarted under load', () => {
  const CALLERS = 20;
  const ENOUGH = 60;
  let postgres: OwnPostgres;
  let database: AppDatabase;

  beforeAll(async () => {
    postgres = await anOwnPostgres();
    await migrate(postgres.url, eventStoreMigrations);
    await createModelTables(postgres.url, NOTES);
    database = await openAppDatabase({ url: postgres.url, service: 'test', poolSize: 4 });
  });

  afterAll(async () => {
    await database?.close();
    await postgres?.remove();
  });

  test.each(['fast', 'immediate', 'kill'] as const)(
    'by %s: what was acknowledged is there once, the rest at most once, and it goes on by itself',
    async (how) => {
      const random = seeded(aSeed(`restart ${how}`));
      const commands = new RecordCommands(NOTES, database, { maxBatch: 8 });
      const outcomes = new Map<string, Outcome>();
      let acknowledged = 0;
      let isOver = false;
      const callers = Array.from({ length: CALLERS }, async (_, caller) => {
        for (let n = 0; !isOver; n += 1) {
          const title = `${how} ${caller} ${n}`;
          const outcome = await createNote(commands, title);
          outcomes.set(title, outcome);
          if ('id' in outcome) acknowledged += 1;
          // While it is away a caller comes again after a moment, as callers do, or it would fail thousands of times.
          else await new Promise((resolve) => setTimeout(resolve, 5 + random() * 20));
        }
      });
      await eventually('some are acknowledged', () => acknowledged > ENOUGH * (1 + random()));
      await postgres.end(how);
      await eventually('callers have noticed', () => [...outcomes.values()].some((outcome) => 'error' in outcome));
      await postgres.start();
      const before = acknowledged;
      await eventually('it goes on by itself', () => acknowledged > before + ENOUGH, 30_000);
      isOver = true;
      await Promise.all(callers);

      const failed = [...outcomes].filter(([, outcome]) => 'error' in outcome).map(([title]) => title);
      expect(failed.length).toBeGreaterThan(0);
      for (const { title, rows, events } of await notes(postgres, [...outcomes.keys()])) {
        const outcome = outcomes.get(title)!;
        if ('id' in outcome)
          expect({ title, rows, events }).toEqual({ title, rows: [outcome.id], events: [outcome.id] });
        expect(rows.length).toBeLessThan(2);
        expect(events).toEqual(rows);
        if (!('error' in outcome)) continue;
        // What a caller is told of it is true, and there is no error that says nothing of it.
        expect(outcome.error).toMatchObject({ code: 'INTERNAL_ERROR', message: expect.stringMatching(WRITTEN_OR_NOT) });
        if (/nothing was written/.test((outcome.error as Error).message)) expect(rows).toEqual([]);
      }
      await expectOnce(postgres.url, commands, outcomes);

      const system = await openSystemDatabase({ url: postgres.url, service: 'test', poolSize: 2 });
      const faults: unknown[] = [];
      const totals = await verifyLog(system, { onFault: (fault) => void faults.push(fault) });
      await system.close();
      expect(faults).toEqual([]);
      expect(totals).toMatchObject({ broken: 0, unchained: 0 });
      expect(totals.events).toBeGreaterThan(2 * ENOUGH);
    },
  );
});

describe('a connection that breaks', () => {
  let database: TestDatabase;
  let cable: Cable;
  let app: AppDatabase;

  beforeAll(async () => {
    database = await aDatabase(eventStoreMigrations);
    await createModelTables(database.url, NOTES);
    cable = await aCable(database.url);
    app = await openAppDatabase({ url: cable.url, service: 'test', poolSize: 4 });
  });

  afterAll(async () => {
    await cable?.close();
    await app?.close();
    await database?.drop();
  });

  test.each<[at: CutAt, there: number | null]>([
    ['before commit', 0],
    ['during commit', null],
    ['after commit', 1],
  ])('%s fails the callers of that transaction alone, and a repeat answers what is there', async (at, there) => {
    const commands = new RecordCommands(NOTES, app);
    const titles = Array.from({ length: 8 }, (_, n) => `${at} ${n}`);
    const cut = cable.cutNext(at);
    const outcomes = await Promise.all(titles.map((title) => createNote(commands, title)));
    await cut;
    // The commit was on its way: whether it arrived is nothing that its sender can know.
    const told = { error: expect.objectContaining({ code: 'INTERNAL_ERROR', message: OPEN }) as unknown };
    expect(outcomes).toEqual(titles.map(() => told));
    expect(await createNote(commands, `${at} later`)).toHaveProperty('id');
    const left = (await notes(database, titles)).map(({ rows, events }) => [rows.length, events.length]);
    // All or nothing, also where it is open which.
    expect(left).toEqual(titles.map(() => (there === null ? left[0] : [there, there])));
    // Postgres ends the transaction of a connection that is gone when it notices; the repeat waits for it.
    await expectOnce(database.url, commands, new Map(titles.map((title, n) => [title, outcomes[n]!])));
  });

  test('for all, and for a while: every command fails with an answer, and the first after it is mended goes through', async () => {
    const commands = new RecordCommands(NOTES, app);
    cable.cut();
    const outcomes = await Promise.all([0, 1, 2].map((n) => createNote(commands, `cut ${n}`)));
    const told = { error: expect.objectContaining({ code: 'INTERNAL_ERROR', message: NO_ANSWER }) as unknown };
    expect(outcomes).toEqual([told, told, told]);
    cable.mend();
    await expectOnce(database.url, commands, new Map(outcomes.map((outcome, n) => [`cut ${n}`, outcome])));
  });
});

describe('a connection that goes silent', () => {
  const LIMIT_MS = 1_000;
  let database: TestDatabase;
  let cable: Cable;
  let app: AppDatabase;

  beforeAll(async () => {
    database = await aDatabase(eventStoreMigrations);
    await createModelTables(database.url, NOTES);
    cable = await aCable(database.url);
    app = await openAppDatabase({ url: cable.url, service: 'test', poolSize: 4, answerTimeoutMs: LIMIT_MS });
  });

  afterAll(async () => {
    cable?.resume();
    await app?.close();
    await cable?.close();
    await database?.drop();
  });

  test('holds up its callers for the limit, and whoever comes after it not at all', async () => {
    const commands = new RecordCommands(NOTES, app, { maxBatch: 2, maxInFlight: 2 });
    // So that both transactions of the tenant go through connections that are there.
    await Promise.all([0, 1, 2, 3].map((n) => createNote(commands, `silent first ${n}`)));
    cable.stall();
    const began = performance.now();
    const titles = Array.from({ length: 12 }, (_, n) => `silent ${n}`);
    const outcomes = await Promise.all(titles.map((title) => createNote(commands, title)));
    expect(performance.now() - began).toBeLessThan(LIMIT_MS * 10);
    const failed = outcomes.filter((outcome) => 'error' in outcome);
    expect(failed.length).toBeGreaterThan(0);
    expect(failed.length).toBeLessThan(titles.length);
    for (const { error } of failed) expect(error).toMatchObject({ code: 'INTERNAL_ERROR', message: NO_ANSWER });
    cable.resume();
    await expectOnce(database.url, commands, new Map(titles.map((title, n) => [title, outcomes[n]!])));
  });

  test.each<CutAt>(['before commit', 'during commit', 'after commit'])(
    '%s leaves it open for its callers alone; what reaches Postgres late doubles nothing',
    async (at) => {
      const commands = new RecordCommands(NOTES, app);
      const titles = [0, 1, 2].map((n) => `silent ${at} ${n}`);
      const silent = cable.stallNext(at);
      const outcomes = await Promise.all(titles.map((title) => createNote(commands, title)));
      await silent;
      const told = { error: expect.objectContaining({ code: 'INTERNAL_ERROR', message: OPEN }) as unknown };
      expect(outcomes).toEqual(titles.map(() => told));
      expect(await createNote(commands, `silent ${at} later`)).toHaveProperty('id');
      cable.resume();
      await expectOnce(database.url, commands, new Map(titles.map((title, n) => [title, outcomes[n]!])));
    },
  );

  test('tells who gave no idempotencyKey to look first', async () => {
    const commands = new RecordCommands(NOTES, app);
    const silent = cable.stallNext('after commit');
    const created = commands.create({ model: Note!, input: { title: 'no key' }, idempotencyKey: null, context });
    await expect(created).rejects.toMatchObject({
      code: 'INTERNAL_ERROR',
      message: OPEN_WITHOUT_KEY,
      cause: { code: 'LOG_OUTCOME_UNKNOWN' },
    });
    await silent;
    cable.resume();
  });
});

describe('a disk that is full', () => {
  const CREATE = `mutation ($title: String!) { createNote(input: { title: $title }, idempotencyKey: $title) { id } }`;
  let database: TestDatabase;
  let api: Awaited<ReturnType<typeof anApi>>;

  beforeAll(async () => {
    database = await aDatabase(eventStoreMigrations);
    await createModelTables(database.url, NOTES);
    await database.asOwner(
      `create function disk_full() returns trigger language plpgsql as
       $$ begin raise exception 'could not extend file "base/5/16384": No space left on device' using errcode = '53100'; end $$`,
    );
    api = await anApi([modelsApi(NOTES, database.app)]);
  });

  afterAll(async () => {
    await api?.close();
    await database?.drop();
  });

  test.each([
    ['as an event is written', 'trigger full_now before insert on event_log'],
    ['as a row is written', 'trigger full_now before insert on model_note'],
    ['at the commit', 'constraint trigger full_now after insert on event_log deferrable initially deferred'],
  ])(
    '%s fails the command with a code and nothing else; when there is room the same command goes through',
    async (when, trigger) => {
      const table = / on (\w+)/.exec(trigger)![1]!;
      const titles = [0, 1, 2].map((n) => `${when} ${n}`);
      const counts = () =>
        database.asOwner(
          'select (select count(*) from event_log), (select count(*) from event_streams), (select count(*) from model_note), (select count(*) from command_answers) as answers',
        );
      const before = await counts();
      await database.asOwner(`create ${trigger} for each row execute function disk_full()`);
      const answers = await Promise.all(titles.map((title) => api.ask(CREATE, { title })));
      for (const { errors } of answers) {
        expect(errors).toMatchObject([{ message: NO_ROOM, extensions: { code: 'INTERNAL_ERROR' } }]);
        expect(JSON.stringify(errors)).not.toMatch(/base\/5|device|event_log|model_note|53100|insert/i);
      }
      // An operator finds the reason in the log, under the id that came with the answer.
      const logged = api.logged.slice(-titles.length) as { err: { code: string; cause: Error }; requestId: string }[];
      expect(logged).toEqual(
        titles.map(() => ({
          err: expect.objectContaining({ code: 'LOG_STORAGE_FULL' }) as unknown,
          requestId: expect.stringMatching(/./) as unknown,
        })),
      );
      expect(logged.map(({ err }) => err.cause.message)).toEqual(
        titles.map(() => expect.stringMatching(/No space left/)),
      );
      expect(await counts()).toEqual(before);
      await database.asOwner(`drop trigger full_now on ${table}`);
      const ids = await Promise.all(
        titles.map(async (title) => (await api.data(CREATE, { title })).createNote.id as string),
      );
      expect((await notes(database, titles)).map(({ rows, events }) => [rows, events])).toEqual(
        ids.map((id) => [[id], [id]]),
      );
    },
  );
});

describe('input that is too much, or no text', () => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await aDatabase(eventStoreMigrations);
    await createModelTables(database.url, NOTES);
  });

  afterAll(() => database?.drop());

  const CREATE = `mutation ($title: String!, $body: String) { createNote(input: { title: $title, body: $body }) { id } }`;
  const LIMIT = /Note\.created have more than 1048576 bytes/;

  test.each([
    ['more than 1 MiB', 'x'.repeat(1_200_000), LIMIT],
    ['1 MiB in letters of three bytes', '漢'.repeat(400_000), LIMIT],
    ['1 MiB of what JSON escapes', '\u0001'.repeat(200_000), LIMIT],
    ['several MB', 'y'.repeat(6_000_000), LIMIT],
    ['a NUL', 'a\0b', /^body has a NUL character/],
    ['half a surrogate pair', 'a\uD800b', /^body has half a surrogate pair/],
    ['more than the field takes', 'z'.repeat(8_000_001), /^body has 8000001 characters; at most 8000000/],
  ])('%s is refused with what is wrong with it, and the commands beside it take effect', async (name, body, said) => {
    const commands = new RecordCommands(NOTES, database.app);
    const beside = [0, 1, 2, 3].map((n) => `${name} beside ${n}`);
    const [first, second, odd, ...others] = await Promise.all([
      createNote(commands, beside[0]!),
      createNote(commands, beside[1]!),
      createNote(commands, name, body),
      createNote(commands, beside[2]!),
      createNote(commands, beside[3]!),
    ]);
    expect(odd).toMatchObject({ error: { code: 'VALIDATION_ERROR', message: expect.stringMatching(said) as unknown } });
    expect([first, second, ...others].every((outcome) => 'id' in outcome)).toBe(true);
    for (const { rows, events } of await notes(database, beside)) expect([rows.length, events.length]).toEqual([1, 1]);
    expect(await notes(database, [name])).toMatchObject([{ rows: [], events: [] }]);
  });

  test('the largest that the log takes is stored whole', async () => {
    // What JSON has beside the text: {"body":"…","title":"…"}.
    const title = 'the largest';
    const body = 'x'.repeat(1024 * 1024 - JSON.stringify({ body: '', title }).length);
    const commands = new RecordCommands(NOTES, database.app);
    expect(await createNote(commands, 'one more byte', `${body}x`)).toMatchObject({
      error: { code: 'VALIDATION_ERROR' },
    });
    const outcome = await createNote(commands, title, body);
    expect(outcome).toHaveProperty('id');
    const [row] = await database.asOwner<{ body: number; logged: number }>(
      `select length(body) as body, (select length(data->>'body') from event_log where stream = 'Note-' || $1) as logged from model_note where id = $1::uuid`,
      ['id' in outcome ? outcome.id : ''],
    );
    expect(row).toEqual({ body: body.length, logged: body.length });
  });

  describe('over HTTP', () => {
    let api: Awaited<ReturnType<typeof anApi>>;
    beforeAll(async () => void (api = await anApi([modelsApi(NOTES, database.app)])));
    afterAll(() => api?.close());

    const post = async (body: string, type = 'application/json') => {
      const headers = { authorization: `Bearer ${TENANT}`, 'content-type': type };
      const response = await fetch(api.url, { method: 'POST', headers, body });
      expect(response.headers.get('content-type')).toMatch(/^application\/(graphql-response\+)?json/);
      return { status: response.status, body: (await response.json()) as object };
    };
    const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);

    test.each([
      ['more than a body may have', 413, 'x'.repeat(1_500_000), /more than 1048576 bytes/],
      ['a NUL', 200, 'a\0b', /^body has a NUL character/],
      ['half a surrogate pair', 200, 'a\uD800b', /^body has half a surrogate pair/],
    ])('%s is answered with %d and a coded error', async (name, status, body, said) => {
      const answer = await post(JSON.stringify({ query: CREATE, variables: { title: `http ${name}`, body } }));
      expect(answer.status).toBe(status);
      if (said) {
        expect(answer.body).toMatchObject({
          errors: [{ message: expect.stringMatching(said) as unknown, extensions: { code: 'VALIDATION_ERROR' } }],
        });
        expect(await notes(database, [`http ${name}`])).toMatchObject([{ rows: [], events: [] }]);
      }
      const { createNote: beside } = await api.data(CREATE, { title: `http ${name} after` });
      expect(beside.id).toBeTruthy();
    });

    const JSON_TYPE = 'application/json';
    const deepVariable = `{"query": ${JSON.stringify(CREATE)}, "variables": {"title": "deep", "body": ${nested(100_000)}}}`;
    const deepList = `mutation { createNote(input: { title: ${nested(40_000)} }) { id } }`;

    test.each([
      ['no JSON', JSON_TYPE, '{"query": '],
      ['nothing', JSON_TYPE, ''],
      ['a text', 'text/plain', 'hello'],
      ['a value nested 100,000 deep', JSON_TYPE, deepVariable],
      ['a body nested 400,000 deep', JSON_TYPE, nested(400_000)],
      [
        'a document nested 20,000 deep',
        JSON_TYPE,
        JSON.stringify({ query: `{ ${'a{'.repeat(20_000)}b${'}'.repeat(20_000)} }` }),
      ],
      ['a list nested 40,000 deep', JSON_TYPE, JSON.stringify({ query: deepList })],
      ['a document that is too long', JSON_TYPE, JSON.stringify({ query: `{ ${'a '.repeat(60_000)} }` })],
    ])('%s is refused with a code, without a stack', async (_name, type, body) => {
      const answer = await post(body, type);
      const { errors } = answer.body as { errors: { message: string; extensions?: { code?: string } }[] };
      expect(errors.length).toBeGreaterThan(0);
      for (const { message, extensions } of errors) {
        expect({ code: extensions?.code, message }).toEqual({
          code: expect.stringMatching(/^(VALIDATION_ERROR|QUERY_TOO_COMPLEX)$/) as unknown,
          message: expect.stringMatching(/^.{10,500}$/) as unknown,
        });
        expect(message).not.toMatch(/ at .*:\d+|call stack|RangeError/);
      }
      expect(answer.status).toBeLessThan(500);
    });
  });
});
