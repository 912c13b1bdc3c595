import { eventStoreMigrations, verifyLog } from '@atomo-cc/event-store';
import { isCodedError, uuidv7 } from '@atomo-cc/kernel';
import { migrate, openAppDatabase, openSystemDatabase, type AppDatabase } from '@atomo-cc/platform/postgres';
import { defineSchema, text } from '@atomo-cc/schema';
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

const NOTES = defineSchema({ models: { Note: { fields: { title: text().required(), body: text().max(1_000_000) } } } });
const [Note] = NOTES.models;
const [TENANT] = SHOP_TENANTS;
const context = { principal: aPrincipal(TENANT), requestId: uuidv7() };

/** A limit for a busy machine, not for the promise. */
jest.setTimeout(90_000);

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
        // A refusal is an answer: what it refused is not there, restart or no.
        if ('error' in outcome && isCodedError(outcome.error)) expect(rows).toEqual([]);
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
    expect(outcomes.map((outcome) => 'error' in outcome)).toEqual(titles.map(() => true));
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
    expect(outcomes.every((outcome) => 'error' in outcome)).toBe(true);
    cable.mend();
    await expectOnce(database.url, commands, new Map(outcomes.map((outcome, n) => [`cut ${n}`, outcome])));
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
        expect(errors).toMatchObject([{ extensions: { code: 'INTERNAL_ERROR' } }]);
        expect(JSON.stringify(errors)).not.toMatch(/base\/5|device|event_log|model_note|53100|insert/i);
      }
      // An operator finds the reason in the log.
      expect(
        JSON.stringify(api.logged, (_key, value: unknown) => (value instanceof Error ? value.message : value)),
      ).toMatch(/No space left/);
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

  test.each([
    ['more than 1 MiB', '語'.repeat(400_000)],
    ['several MB', 'y'.repeat(6_000_000)],
    ['a NUL', 'a\0b'],
    ['half a surrogate pair', 'a\uD800b'],
  ])('%s is stored whole or refused with a code, and the commands beside it take effect', async (name, body) => {
    const commands = new RecordCommands(NOTES, database.app);
    const beside = [0, 1, 2, 3].map((n) => `${name} beside ${n}`);
    const [odd, ...others] = await Promise.all([
      createNote(commands, name, body),
      ...beside.map((title) => createNote(commands, title)),
    ]);
    expect(others.every((outcome) => 'id' in outcome)).toBe(true);
    for (const { rows, events } of await notes(database, beside)) expect([rows.length, events.length]).toEqual([1, 1]);
    const [stored] = await notes(database, [name]);
    if ('error' in odd) {
      expect(isCodedError(odd.error)).toBe(true);
      expect(stored).toMatchObject({ rows: [], events: [] });
    } else {
      const [row] = await database.asOwner<{ body: string; logged: string }>(
        `select body, (select data->>'body' from event_log where stream = 'Note-' || $1) as logged from model_note where id = $1::uuid`,
        [odd.id],
      );
      expect(row!.body === body && row!.logged === body).toBe(true);
    }
  });
});
