import { createClient, type Client } from 'graphql-ws';
import { WebSocket } from 'ws';
import { eventStoreMigrations, Fence, ProjectionRunner } from '@atomo-cc/event-store';
import {
  belongsTo,
  caller,
  defineSchema,
  email,
  enumeration,
  hasMany,
  integer,
  template,
  text,
} from '@atomo-cc/schema';
import { Leases1700000001000 } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { anApi, callers, SHOP_TENANTS, type Answer, type Json, type TestApi } from '../testing/index.js';
import { historyProjection } from './history-projection.js';
import { createModelTables } from './model-tables.js';
import { modelsApi } from './models-api.js';

/** For a busy machine. */
jest.setTimeout(60_000);

const [OURS] = SHOP_TENANTS;
/** The caller of a test has the id of its tenant. */
const ME: string = OURS;
const SOMEONE = '00000000-0000-7000-8000-0000000000ff';

const CRM = defineSchema({
  models: {
    Team: {
      fields: { name: text().required(), people: hasMany('Person') },
      access: { read: { everyone: true, Support: false } },
    },
    Person: {
      plural: 'people',
      softDelete: true,
      fields: {
        name: text().required(),
        mail: email().unique(),
        salary: integer(),
        owner: text().max(36),
        stage: enumeration('Public', 'Hidden'),
        team: belongsTo('Team'),
        notes: hasMany('Note'),
      },
      computed: { label: template('{name} earns {salary}') },
      checks: [{ where: { salary: { gte: 0 } }, message: 'Nobody pays for working.' }],
      access: {
        read: {
          Manager: true,
          Sales: { where: { owner: { equals: caller.id } } },
          Support: ['name', 'team', 'notes'],
          Viewer: { fields: ['name', 'stage', 'team', 'createdAt'], where: { stage: { equals: 'Public' } } },
        },
        create: {
          Manager: true,
          Sales: { fields: ['name', 'owner', 'stage', 'team'], where: { owner: { equals: caller.id } } },
          Viewer: ['name', 'mail'],
        },
        update: {
          Manager: { where: { stage: { not: 'Public' } } },
          Sales: ['name', 'owner', 'stage'],
          Support: { fields: ['name', 'mail', 'salary'] },
        },
        delete: { Manager: true, Sales: { where: { stage: { not: 'Public' } } } },
      },
    },
    Note: {
      fields: { body: text().required(), tone: text(), person: belongsTo('Person').required() },
      access: {
        read: {
          Manager: true,
          Sales: ['body', 'person'],
          Viewer: { fields: ['body', 'person'], where: { tone: { equals: 'kind' } } },
        },
        create: { Support: true, Sales: true },
      },
    },
  },
});

type Row = Readonly<Record<string, string | number | null>>;
type Rule = { readonly fields: readonly string[] | 'all'; readonly rows: (row: Row) => boolean };
const all = () => true;

/** What the access above says, written a second time as plainly as can be: by model, operation and role. Admin may read and write all. */
const RULES: Readonly<Record<string, Readonly<Record<'read' | 'create' | 'update', Readonly<Record<string, Rule>>>>>> =
  {
    Team: {
      read: {
        Manager: { fields: 'all', rows: all },
        Sales: { fields: 'all', rows: all },
        Viewer: { fields: 'all', rows: all },
      },
      create: {},
      update: {},
    },
    Person: {
      read: {
        Manager: { fields: 'all', rows: all },
        Sales: { fields: 'all', rows: ({ owner }) => owner === ME },
        Support: { fields: ['id', 'name', 'teamId'], rows: all },
        Viewer: {
          fields: ['id', 'name', 'stage', 'teamId', 'team', 'createdAt'],
          rows: ({ stage }) => stage === 'Public',
        },
      },
      create: {
        Manager: { fields: 'all', rows: all },
        Sales: { fields: ['name', 'owner', 'stage', 'teamId'], rows: ({ owner }) => owner === ME },
        Viewer: { fields: ['name', 'mail'], rows: all },
      },
      update: {
        Manager: { fields: 'all', rows: ({ stage }) => stage !== 'Public' },
        Sales: { fields: ['name', 'owner', 'stage'], rows: all },
        Support: { fields: ['name', 'mail', 'salary'], rows: all },
      },
    },
    Note: {
      read: {
        Manager: { fields: 'all', rows: all },
        Sales: { fields: ['id', 'body', 'personId', 'person'], rows: all },
        Viewer: { fields: ['id', 'body', 'personId', 'person'], rows: ({ tone }) => tone === 'kind' },
      },
      create: { Sales: { fields: 'all', rows: all }, Support: { fields: 'all', rows: all } },
      update: {},
    },
  };
/** Which people a role may delete. */
const DELETES: Readonly<Record<string, (row: Row) => boolean>> = {
  Admin: all,
  Manager: all,
  Sales: ({ stage }) => stage !== 'Public',
};
const ROLES = ['Admin', 'Manager', 'Sales', 'Support', 'Viewer', 'Stranger'];
const ruleOf = (model: string, operation: 'read' | 'create' | 'update', role: string): Rule | undefined =>
  role === 'Admin' ? { fields: 'all', rows: all } : RULES[model]![operation][role];
const mayRead = (model: string, role: string, field: string) => {
  const rule = ruleOf(model, 'read', role);
  return rule !== undefined && (rule.fields === 'all' || rule.fields.includes(field));
};

const ID = (n: number) => `01900000-0000-7000-8000-${String(n).padStart(12, '0')}`;
const person = (n: number, row: Row): Row => ({
  id: ID(n),
  mail: `${n}@example.com`,
  salary: n * 10,
  teamId: ID(1),
  ...row,
});
const ROWS: Readonly<Record<string, readonly Row[]>> = {
  Team: [{ id: ID(1), name: 'Sea' }],
  Person: [
    person(11, { name: 'Ada', owner: ME, stage: 'Public' }),
    person(12, { name: 'Bob', owner: ME, stage: 'Hidden' }),
    person(13, { name: 'Cyd', owner: SOMEONE, stage: 'Public' }),
    person(14, { name: 'Dan', owner: null, stage: null, salary: null, teamId: null }),
  ],
  Note: [
    { id: ID(21), body: 'a', tone: 'kind', personId: ID(11) },
    { id: ID(22), body: 'b', tone: null, personId: ID(11) },
    { id: ID(23), body: 'c', tone: 'kind', personId: ID(13) },
    { id: ID(24), body: 'd', tone: 'kind', personId: ID(12) },
  ],
};
const seen = (model: string, role: string): Row[] => {
  const rule = ruleOf(model, 'read', role);
  return rule ? ROWS[model]!.filter(rule.rows) : [];
};
/** All names under which a record's own values are read. */
const FIELDS: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  CRM.models.map(({ name, fields }) => [
    name,
    [
      'id',
      'version',
      'createdAt',
      ...fields.map((field) => (field.type === 'relation' ? `${field.name}Id` : field.name)),
    ],
  ]),
);

let database: TestDatabase;
let api: TestApi;
let runner: ProjectionRunner;
const sockets = new Map<string, Client>();

const TRANSPORTS = {
  http: async (role: string, query: string, variables: Record<string, unknown> = {}): Promise<Answer> => {
    callers.role = role;
    return api.ask(query, variables);
  },
  sse: async (role: string, query: string, variables: Record<string, unknown> = {}): Promise<Answer> => {
    callers.role = role;
    const response = await fetch(api.url, {
      method: 'POST',
      headers: { authorization: `Bearer ${OURS}`, 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ query, variables }),
    });
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    const [, data] = /^event: next\ndata: (.*)$/m.exec(await response.text())!;
    return { status: response.status, ...(JSON.parse(data!) as Omit<Answer, 'status'>) };
  },
  ws: async (role: string, query: string, variables: Record<string, unknown> = {}): Promise<Answer> => {
    callers.role = role;
    let client = sockets.get(role);
    if (!client) {
      client = createClient({
        url: api.url.replace('http', 'ws'),
        webSocketImpl: WebSocket,
        connectionParams: { authorization: `Bearer ${OURS}` },
        retryAttempts: 0,
      });
      sockets.set(role, client);
    }
    const asked = client;
    return new Promise((resolve) => {
      let answer: Answer = { status: 200, data: null };
      asked.subscribe(
        { query, variables },
        {
          next: (result) => (answer = { status: 200, ...result } as Answer),
          error: (errors) => resolve({ status: 200, data: null, errors: errors as Answer['errors'] & object }),
          complete: () => resolve(answer),
        },
      );
    });
  },
};
type Ask = (query: string, variables?: Record<string, unknown>) => Promise<Answer>;
const code = ({ errors }: Answer): string | undefined => errors?.[0]?.extensions?.['code'];
/** Whether an answer says no to a document, and names nothing of what it does not show. */
const isUnknown = (answer: Answer) => code(answer) === 'VALIDATION_ERROR' && answer.data == null;

beforeAll(async () => {
  database = await aDatabase([Leases1700000001000, ...eventStoreMigrations]);
  await createModelTables(database.url, CRM);
  runner = new ProjectionRunner({
    database: database.system,
    databaseUrl: database.url,
    projections: [historyProjection(CRM)],
    onError: (error) => {
      throw error;
    },
  });
  api = await anApi([
    modelsApi(CRM, database.app, { onAppended: () => runner.wake(), changes: { fence: new Fence() } }),
  ]);
  for (const { name, table } of CRM.models) {
    for (const row of ROWS[name]!) {
      const columns = Object.keys(row).map((field) => field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
      await database.asOwner(
        `insert into ${table} (tenant_id, version, created_at, updated_at, ${columns.join(', ')})
         values ($1, 1, now(), now(), ${columns.map((_, n) => `$${n + 2}`).join(', ')})`,
        [OURS, ...Object.values(row)],
      );
    }
  }
});

afterAll(async () => {
  callers.role = 'Admin';
  for (const client of sockets.values()) await client.dispose();
  await api?.close();
  await runner?.stop();
  await database?.drop();
});

describe.each(Object.keys(TRANSPORTS) as (keyof typeof TRANSPORTS)[])('over %s', (transport) => {
  describe.each(ROLES)('%s', (role) => {
    const ask: Ask = (query, variables) => TRANSPORTS[transport](role, query, variables);

    describe.each(CRM.models.map(({ name }) => name))('reads of %s', (model) => {
      const { singular, plural } = CRM.models.find(({ name }) => name === model)!;
      const rows = seen(model, role);
      const isRead = ruleOf(model, 'read', role) !== undefined;
      const readable = FIELDS[model]!.filter((field) => mayRead(model, role, field));

      test('the rows and the fields that may be seen, and their number', async () => {
        const answer = await ask(`{ ${plural} { nodes { id } totalCount } ${singular}Aggregate { count } }`);
        if (!isRead) return expect(isUnknown(answer)).toBe(true);
        expect(answer.data[plural]).toEqual({ nodes: rows.map(({ id }) => ({ id })), totalCount: rows.length });
        expect(answer.data[`${singular}Aggregate`]).toEqual([{ count: rows.length }]);
        const page = await ask(`{ ${plural} { nodes { ${readable.join(' ')} } } }`);
        for (const [at, node] of (page.data[plural].nodes as Json[]).entries())
          expect(node).toMatchObject(
            Object.fromEntries(Object.entries(rows[at]!).filter(([field]) => readable.includes(field))),
          );
        return undefined;
      });

      test('each record by its id', async () => {
        for (const row of ROWS[model]!) {
          const answer = await ask(`query ($id: ID!) { ${singular}(id: $id) { id } }`, { id: row['id'] });
          if (!isRead) expect(isUnknown(answer)).toBe(true);
          else expect(answer.data[singular]).toEqual(rows.includes(row) ? { id: row['id'] } : null);
        }
      });

      test.each(FIELDS[model]!)('%s: in results, conditions, orders and groups', async (field) => {
        const own = ['version', 'createdAt', 'id'].includes(field);
        const documents = [
          `{ ${plural} { nodes { ${field} } } }`,
          `{ ${singular}History(id: "${ID(11)}") { nodes { record { ${field} } } } }`,
          ...(own ? [] : [`{ ${plural}(where: { ${field}: { isNull: false } }) { nodes { id } } }`]),
          ...(own || field.endsWith('Id') ? [] : [`{ ${plural}(orderBy: [{ ${field}: ASC }]) { nodes { id } } }`]),
          ...(own ? [] : [`{ ${singular}Aggregate(groupBy: [${field}]) { group { ${field} } } }`]),
          ...(field === 'salary' ? [`{ ${singular}Aggregate { sum { ${field} } } }`] : []),
        ];
        for (const document of documents) {
          const answer = await ask(document);
          expect([document, answer.errors === undefined]).toEqual([document, readable.includes(field)]);
          if (answer.errors) expect(isUnknown(answer)).toBe(true);
        }
        if (!own && readable.includes(field)) {
          const filtered = await ask(`{ ${plural}(where: { ${field}: { isNull: false } }) { nodes { id } } }`);
          expect(filtered.data[plural].nodes).toEqual(
            rows.filter((row) => row[field] != null).map(({ id }) => ({ id })),
          );
        }
      });
    });

    test('what is computed: in results, conditions, orders and groups', async () => {
      const rows = seen('Person', role);
      const isRead = mayRead('Person', role, 'label');
      for (const document of [
        '{ people { nodes { label } } }',
        '{ people(where: { label: { startsWith: "Ada earns" } }) { nodes { id } } }',
        '{ people(where: { not: { or: [{ label: { isNull: true } }] } }) { nodes { id } } }',
        '{ notes(where: { person: { is: { label: { contains: "earns 1" } } } }) { nodes { id } } }',
        '{ people(orderBy: [{ label: ASC }]) { nodes { id } } }',
        '{ personAggregate(groupBy: [label]) { group { label } } }',
        '{ personAggregate { group { label } } }',
      ]) {
        const answer = await ask(document);
        expect([document, answer.errors === undefined]).toEqual([document, isRead]);
        if (answer.errors) expect(isUnknown(answer)).toBe(true);
      }
      if (!isRead) return;
      const ids = (some: readonly Row[]) => some.map(({ id }) => ({ id }));
      const found = await ask(
        '{ people(where: { label: { endsWith: "0" } }, orderBy: [{ label: DESC }]) { nodes { id } } }',
      );
      expect(found.data.people.nodes).toEqual(ids(rows.filter(({ salary }) => salary !== null).toReversed()));
    });

    test('what is tied to a record', async () => {
      const notes = seen('Note', role);
      if (mayRead('Person', role, 'name')) {
        const answer = await ask('{ people { nodes { id notes { nodes { id } totalCount } } } }');
        const isFollowed = mayRead('Note', role, 'personId') && role !== 'Viewer';
        expect(answer.errors === undefined).toBe(isFollowed);
        for (const { id, notes: list } of answer.data?.people.nodes ?? []) {
          const own = notes.filter(({ personId }) => personId === id);
          expect(list).toEqual({ nodes: own.map((note) => ({ id: note['id'] })), totalCount: own.length });
        }
        const some = await ask('{ people(where: { notes: { some: {} } }) { nodes { id } } }');
        expect(some.errors === undefined).toBe(isFollowed);
        if (isFollowed)
          expect(some.data.people.nodes).toEqual(
            seen('Person', role)
              .filter(({ id }) => notes.some(({ personId }) => personId === id))
              .map(({ id }) => ({ id })),
          );
      }
      if (!mayRead('Note', role, 'person')) return;
      const people = seen('Person', role);
      const answer = await ask('{ notes { nodes { id personId person { id } } } }');
      expect(answer.data.notes.nodes).toEqual(
        notes.map(({ id, personId }) => ({
          id,
          personId,
          person: people.some((other) => other['id'] === personId) ? { id: personId } : null,
        })),
      );
      const is = await ask('{ notes(where: { person: { is: {} } }) { nodes { id } } }');
      expect(is.data.notes.nodes).toEqual(
        notes.filter(({ personId }) => people.some(({ id }) => id === personId)).map(({ id }) => ({ id })),
      );
    });

    test('introspection and suggestions name nothing that is hidden', async () => {
      const hidden = ['mail', 'salary', 'tone', 'owner', 'label'].filter(
        (field) =>
          !mayRead('Person', role, field) &&
          !mayRead('Note', role, field) &&
          !['Person', 'Note'].some(
            (model) => writes(model, 'create', role, field) || writes(model, 'update', role, field),
          ),
      );
      const told = JSON.stringify([
        await ask(
          '{ __schema { types { name description fields { name args { name } } inputFields { name } enumValues { name } } } }',
        ),
        await ask('{ people { nodes { salar mai owne labe } } notes { nodes { ton } } }'),
        await ask('{ people(where: { salar: {}, mai: {}, owne: {} }, orderBy: [{ salar: ASC }]) { nodes { nam } } }'),
        await ask('{ personAggregate(groupBy: [salar, owne]) { sum { salar } } }'),
      ]);
      for (const field of hidden) expect(told).not.toMatch(new RegExp(`\\b${field}\\b`, 'i'));
      for (const { name } of CRM.models) {
        if (ruleOf(name, 'read', role) || ruleOf(name, 'create', role)) continue;
        expect(told).not.toMatch(new RegExp(`\\b(Create)?${name}(Input|Where)?\\b"`));
      }
    });
  });
});

test('an operation that a role lacks is forbidden where it knows of the model, and unknown where it does not', async () => {
  callers.role = 'Viewer';
  for (const mutation of [`updatePerson(id: "${ID(11)}", input: {}) { id }`, 'createTeam(input: {}) { id }'])
    expect(code(await api.ask(`mutation { ${mutation} }`))).toBe('FORBIDDEN');
  callers.role = 'Support';
  expect(code(await api.ask('mutation { createTeam(input: {}) { id } }'))).toBe('VALIDATION_ERROR');
  callers.role = 'Stranger';
  expect(code(await api.ask('mutation { createTeam(input: {}) { id } }'))).toBe('VALIDATION_ERROR');
  expect(await api.data('{ me { id role } }')).toEqual({ me: { id: ME, role: 'Stranger' } });
});

describe('writes', () => {
  const NEW: Readonly<Record<string, Row[string]>> = {
    name: 'Eve',
    mail: null,
    salary: 7,
    owner: SOMEONE,
    stage: 'Public',
    teamId: null,
  };
  const admin = async (mutation: string): Promise<Json> => {
    callers.role = 'Admin';
    const data = await api.data(`mutation { ${mutation} }`);
    return Object.values(data)[0];
  };
  const literal = (field: string, value: Row[string] | undefined) =>
    field === 'stage' && value ? String(value) : JSON.stringify(value ?? null);
  const input = (row: Row) =>
    `{ ${Object.entries(row)
      .filter(([field]) => field !== 'id' && field !== 'mail')
      .map(([field, value]) => `${field}: ${literal(field, value)}`)
      .join(', ')} }`;
  /** What a document that writes fields comes to, before any record is looked at. */
  const isOffered = (operation: 'create' | 'update', role: string, fields: readonly string[]) =>
    fields.every((field) => writes('Person', operation, role, field));

  describe.each(ROLES)('of %s', (role) => {
    test.each(Object.keys(NEW))('%s of each record that there is', async (field) => {
      for (const row of ROWS['Person']!) {
        const { id } = await admin(`createPerson(input: ${input(row)}) { id }`);
        const after = { ...row, [field]: NEW[field]! };
        callers.role = role;
        const answer = await api.ask(
          `mutation { updatePerson(id: "${id}", input: { ${field}: ${literal(field, NEW[field])} }) { id } }`,
        );
        const sees = ruleOf('Person', 'read', role)?.rows ?? (() => false);
        const may = ruleOf('Person', 'update', role)?.rows ?? (() => false);
        const isChanged = isOffered('update', role, [field]) && sees(row) && may(row) && may(after);
        if (!isOffered('update', role, [field])) expect(['FORBIDDEN', 'VALIDATION_ERROR']).toContain(code(answer));
        else if (!sees(row)) expect(code(answer)).toBe('NOT_FOUND');
        else if (!isChanged) expect(code(answer)).toBe('FORBIDDEN');
        else expect(answer).toMatchObject({ data: { updatePerson: sees(after) ? { id } : null } });
        callers.role = 'Admin';
        const { person: now } = await api.data(`{ person(id: "${id}") { name salary owner stage teamId } }`);
        expect(now).toEqual(
          Object.fromEntries(Object.keys(now).map((name) => [name, (isChanged ? after : row)[name] ?? null])),
        );
      }
    });

    test('deletes of each record that there is, and nothing behind them', async () => {
      for (const row of ROWS['Person']!) {
        const { id } = await admin(`createPerson(input: ${input(row)}) { id }`);
        callers.role = role;
        const answer = await api.ask(`mutation { deletePerson(id: "${id}") { id } }`);
        const sees = ruleOf('Person', 'read', role)?.rows ?? (() => false);
        const isDeleted = sees(row) && (DELETES[role]?.(row) ?? false);
        if (!DELETES[role]) expect(['FORBIDDEN', 'VALIDATION_ERROR']).toContain(code(answer));
        else if (!isDeleted) expect(code(answer)).toBe(sees(row) ? 'FORBIDDEN' : 'NOT_FOUND');
        callers.role = 'Admin';
        expect((await api.data(`{ person(id: "${id}") { id } }`)).person).toEqual(isDeleted ? null : { id });
        if (!isDeleted) continue;
        // Whoever may not delete cannot bring it back, purge it, or look for it.
        callers.role = 'Support';
        for (const verb of ['restore', 'purge'])
          expect(code(await api.ask(`mutation { ${verb}Person(id: "${id}") { id } }`))).toBe('FORBIDDEN');
        expect(code(await api.ask('{ people(deleted: ONLY) { totalCount } }'))).toBe('VALIDATION_ERROR');
      }
    });

    test('new records', async () => {
      for (const row of ROWS['Person']!) {
        for (const fields of [['name'], ['name', 'owner'], ['name', 'salary'], ['name', 'stage', 'teamId', 'owner']]) {
          const given = Object.fromEntries(fields.map((field) => [field, row[field]!]));
          callers.role = role;
          const answer = await api.ask(`mutation { createPerson(input: ${input(given)}) { id } }`);
          const whole = { owner: null, stage: null, ...given };
          if (!isOffered('create', role, fields)) expect(['FORBIDDEN', 'VALIDATION_ERROR']).toContain(code(answer));
          else if (!ruleOf('Person', 'create', role)!.rows(whole)) expect(code(answer)).toBe('FORBIDDEN');
          else if (ruleOf('Person', 'read', role)!.rows(whole)) expect(answer.data.createPerson.id).toHaveLength(36);
          else expect(answer).toMatchObject({ data: { createPerson: null } });
        }
      }
    });
  });

  test('refer only to what may be seen, and answer the id alone to who may not read', async () => {
    const note = (person: string) =>
      api.ask(`mutation { createNote(input: { body: "x", personId: "${person}" }) { id } }`);
    callers.role = 'Sales';
    const [hidden, missing] = [await note(ID(13)), await note(ID(99))];
    expect(code(hidden)).toBe('VALIDATION_ERROR');
    expect(hidden.errors![0]!.message).toBe(missing.errors![0]!.message);
    callers.role = 'Support';
    const made = await note(ID(13));
    expect(made.data.createNote.id).toHaveLength(36);
    expect(code(await api.ask('mutation { createNote(input: { body: "x", personId: "" }) { id body } }'))).toBe(
      'VALIDATION_ERROR',
    );
  });

  test('a repeat of a command answers what may be seen now', async () => {
    callers.role = 'Sales';
    const create = `mutation { createPerson(input: { name: "Mine", owner: "${ME}" }, idempotencyKey: "once") { id } }`;
    const { createPerson: made } = await api.data(create);
    expect(await api.data(create)).toEqual({ createPerson: made });
    await admin(`updatePerson(id: "${made.id}", input: { owner: "${SOMEONE}" }) { id }`);
    callers.role = 'Sales';
    expect(await api.data(create)).toEqual({ createPerson: null });
  });

  test('a restore brings back no more than may be written, and nothing of a version that may not be seen', async () => {
    const row = { name: 'One', salary: 1, owner: ME, stage: 'Public' };
    const { id } = await admin(`createPerson(input: ${input(row)}) { id }`);
    await admin(`updatePerson(id: "${id}", input: { name: "Two", salary: 2 }) { id }`);
    await admin(`updatePerson(id: "${id}", input: { name: "Three", owner: "${SOMEONE}" }) { id }`);
    const restore = (version: number) =>
      api.ask(`mutation { restorePerson(id: "${id}", version: ${version}) { name salary } }`);
    callers.role = 'Sales';
    expect(code(await restore(1))).toBe('NOT_FOUND');
    await admin(`updatePerson(id: "${id}", input: { owner: "${ME}" }) { id }`);
    callers.role = 'Sales';
    expect((await restore(1)).data).toEqual({ restorePerson: { name: 'One', salary: 2 } });
    expect(code(await restore(3))).toBe('FORBIDDEN');
  });
});

describe('what happens', () => {
  const STAGES = ['Hidden', 'Public', 'Hidden'] as const;
  let id: string;
  let times: string[];

  beforeAll(async () => {
    callers.role = 'Admin';
    const made = await api.data(
      'mutation { createPerson(input: { name: "Secret", salary: 5, stage: Hidden }) { id updatedAt } }',
    );
    ({ id } = made.createPerson);
    times = [made.createPerson.updatedAt];
    for (const [name, stage] of [
      ['Known', 'Public'],
      ['Gone', 'Hidden'],
    ]) {
      const set = `{ name: "${name}", salary: 6, stage: ${stage} }`;
      const { updatePerson } = await api.data(`mutation { updatePerson(id: "${id}", input: ${set}) { updatedAt } }`);
      times.push(updatePerson.updatedAt);
    }
  });

  test('is in a history as today’s rules show each version, and what was before it too', async () => {
    callers.role = 'Viewer';
    const entry = 'action changes { field before after } record { name stage }';
    const { personHistory } = await api.data(`{ personHistory(id: "${id}") { nodes { ${entry} } } }`);
    expect(personHistory.nodes).toEqual([
      {
        action: 'updated',
        changes: [
          { field: 'name', before: null, after: 'Known' },
          { field: 'stage', before: null, after: 'Public' },
        ],
        record: { name: 'Known', stage: 'Public' },
      },
    ]);
    expect(code(await api.ask(`{ personHistory(id: "${id}") { nodes { version } } }`))).toBe('VALIDATION_ERROR');
  });

  test.each(['the history is behind', 'the history has all'])(
    'is told to whom it concerns, while %s',
    async (state) => {
      if (state === 'the history has all') {
        await runner.start();
        callers.role = 'Admin';
        // An answer as of a time waits for the history.
        await api.data(`{ person(id: "${id}", asOf: "${times[2]}") { id } }`);
      }
      const seenChanges: Json[] = [];
      const client = createClient({
        url: api.url.replace('http', 'ws'),
        webSocketImpl: WebSocket,
        connectionParams: { authorization: `Bearer ${OURS}/Viewer` },
        retryAttempts: 0,
      });
      const document = 'subscription { personChanged(after: "0") { type id changedFields person { name stage } } }';
      callers.role = 'Admin';
      for await (const { data } of client.iterate<{ personChanged: Json }>({ query: document })) {
        if (data!.personChanged.id === id) seenChanges.push(data!.personChanged);
        // The last event of the log: it is made to be seen.
        if (data!.personChanged.person?.name === 'End') break;
        if (seenChanges.length === 1 && !ended) {
          ended = true;
          await api.data('mutation { createPerson(input: { name: "End", stage: Public }) { id } }');
        }
      }
      ended = false;
      await client.dispose();
      // It was hidden, is shown no more, and was seen once between: that it went is all there is to tell.
      expect(seenChanges).toEqual([{ type: 'UPDATED', id, changedFields: ['name', 'stage'], person: null }]);
    },
  );
  let ended = false;

  test('is read as of a time by the rules on the record of that time', async () => {
    const asked = async (role: string) => {
      callers.role = role;
      return Promise.all(
        times.map(async (asOf) => {
          const one = await api.data(`{ person(id: "${id}", asOf: "${asOf}") { name stage } }`);
          const many = await api.data(
            `{ people(where: { id: { equals: "${id}" } }, asOf: "${asOf}") { totalCount } personAggregate(where: { id: { equals: "${id}" } }, asOf: "${asOf}") { count } }`,
          );
          return [one.person?.stage ?? null, many.people.totalCount, many.personAggregate[0].count];
        }),
      );
    };
    expect(await asked('Admin')).toEqual(STAGES.map((stage) => [stage, 1, 1]));
    expect(await asked('Viewer')).toEqual([
      [null, 0, 0],
      ['Public', 1, 1],
      [null, 0, 0],
    ]);
  });

  test('pages of a history go on behind versions that may not be seen, however many', async () => {
    const [hidden, known] = [2_300, [1, 2, 3, 40, 1_100, 2_290]];
    await database.asOwner(
      `insert into event_log (position, tenant_id, stream, stream_version, type, schema_version, data, metadata)
       select nextval('event_log_position'), $1, $2, n, case when n = 1 then 'Person.created' else 'Person.updated' end, 1,
         jsonb_build_object('name', 'n' || n, 'stage', case when n = any($4) then 'Public' else 'Hidden' end),
         '{"actor": "system:test", "correlationId": "x"}'
       from generate_series(1, $3::int) n`,
      [OURS, `Person-${ID(99)}`, hidden, known],
    );
    callers.role = 'Viewer';
    const names: string[] = [];
    let [pages, after, isMore] = [0, null as string | null, true];
    for (; isMore; pages += 1) {
      const { personHistory } = await api.data(
        `query ($after: String) { personHistory(id: "${ID(99)}", first: 2, after: $after) { nodes { record { name } } pageInfo { hasNextPage endCursor } } }`,
        { after },
      );
      names.push(...personHistory.nodes.map((node: Json) => node.record.name));
      ({ hasNextPage: isMore, endCursor: after } = personHistory.pageInfo);
    }
    expect(names).toEqual(known.toReversed().map((n) => `n${n}`));
    // None looks through all that is hidden.
    expect(pages).toBeGreaterThan(known.length / 2);
  });
});

function writes(model: string, operation: 'create' | 'update', role: string, field: string): boolean {
  const rule = ruleOf(model, operation, role);
  if (!rule || (operation === 'update' && !ruleOf(model, 'read', role))) return false;
  return rule.fields === 'all' || rule.fields.includes(field);
}
