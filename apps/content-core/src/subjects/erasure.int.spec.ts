import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { checkpointKey, exportLog, importLog, replayLog, type Projection } from '@atomo-cc/event-store';
import { uuidv7 } from '@atomo-cc/kernel';
import { indexPending, ingestMessages, localHashEmbedder, SemanticStore, type SourceMessage } from '@atomo-cc/memory';
import { BlobStore } from '@atomo-cc/platform/blobs';
import { JobQueues, OutboxRelay } from '@atomo-cc/platform/queues';
import type { Redis } from '@atomo-cc/platform/redis';
import { claimSyncJob, completeSyncJob, quarantine, startSyncJob } from '@atomo-cc/sync-jobs';
import { belongsTo, date, defineSchema, email, enumeration, slug, text } from '@atomo-cc/schema';
import { aDatabase, aRedis, eventually, type TestDatabase } from '@atomo-cc/testing';
import { contentCoreMigrations } from '../migrations.js';
import { createModelTables, projectionsOf } from '../models/index.js';
import { aSystem, type TestSystem } from '../models/testing/index.js';
import { aPrincipal, callers, SHOP_TENANTS, type Json } from '../testing/index.js';
import { Erasures, type ErasureWork } from './erasures.js';
import { SubjectExport } from './subject-export.js';
import { subjectsApi } from './subjects-api.js';

// For a busy machine, not for the promise.
jest.setTimeout(120_000);

const [OURS] = SHOP_TENANTS;
const SCHEMA = defineSchema({
  models: {
    Contact: {
      fields: {
        name: text().required().personal(),
        handle: slug({ from: 'name' }),
        email: email().unique().personal(),
        phone: text().personal(),
        birthday: date().personal(),
        stage: enumeration('Lead', 'Customer'),
      },
    },
    Note: { fields: { title: text().required(), contact: belongsTo('Contact') } },
  },
});

/** Fails at whoever is told to fail, and says in the error what it read. */
const CAREFUL: Projection = {
  name: 'careful',
  version: 1,
  mode: 'async',
  eventTypes: 'all',
  tables: [],
  apply: (batch) => {
    for (const { data, stream } of batch) {
      if (data['stage'] === 'Lead' && data['name']) throw new Error(`${stream}: ${JSON.stringify(data)} is a lead`);
    }
    return Promise.resolve();
  },
};

let system: TestSystem;
let erasures: Erasures;
let folder: string;
let memory: ErasureWork['memory'];
let blobs: BlobStore;
const faults: unknown[] = [];
/** Of the first test, for the last. */
const erasedValues: string[] = [];
beforeAll(async () => {
  system = await aSystem(SCHEMA, {
    projections: [CAREFUL],
    onError: () => undefined,
    parts: ({ database, commands }) => [subjectsApi(SCHEMA, database.app, commands, () => undefined)],
  });
  folder = await mkdtemp(path.join(tmpdir(), 'erasure-'));
  memory = { store: new SemanticStore({ uri: folder }), embedder: localHashEmbedder };
  blobs = new BlobStore(system.database.app);
  erasures = new Erasures({
    schema: SCHEMA,
    databaseUrl: system.database.url,
    database: system.database.app,
    system: system.database.system,
    codec: system.codec,
    memory,
    blobs,
    readersLeaveMs: 0,
    onError: (error) => faults.push(error),
  });
});
afterAll(async () => {
  await memory?.store.close();
  await system?.stop();
  await rm(folder, { recursive: true, force: true });
});
afterEach(() => {
  expect(faults.splice(0)).toEqual([]);
  callers.role = 'Admin';
});

const CREATE =
  'mutation ($input: CreateContactInput!, $key: String) { createContact(input: $input, idempotencyKey: $key) { id } }';
const UPDATE = 'mutation ($id: ID!, $input: UpdateContactInput!) { updateContact(id: $id, input: $input) { version } }';
const ERASE = `mutation ($id: ID!, $model: String = "Contact", $reason: String = "asked to", $seen: Int) {
  eraseSubject(model: $model, id: $id, reason: $reason, expectedVersion: $seen) { id model recordId version requestedBy completedAt } }`;
const FIELDS = 'id version name handle email phone birthday stage deletedAt';

const contact = async (input: object, key: string | null = null): Promise<string> =>
  (await system.api.data(CREATE, { input, key })).createContact.id;
const update = (id: string, input: object) => system.api.data(UPDATE, { id, input });
const erase = async (id: string): Promise<Json> => (await system.api.data(ERASE, { id })).eraseSubject;
const read = async (id: string): Promise<Json> =>
  (await system.api.data(`query ($id: ID!) { contact(id: $id, deleted: INCLUDE) { ${FIELDS} } }`, { id })).contact;
const caughtUp = () =>
  eventually('the projections have caught up', async () => {
    system.runner.wake();
    return (await system.runner.status()).every(({ lagEvents }) => lagEvents === 0);
  });

/** The document that is handed to who is meant. */
async function exported(id: string): Promise<Json> {
  const exports = new SubjectExport(SCHEMA, system.database.app, system.codec);
  const principal = aPrincipal(OURS);
  const subject = await exports.begin(principal, 'Contact', id, { actor: principal.actor });
  let text = '';
  for await (const piece of exports.write(principal, subject)) text += piece;
  return JSON.parse(text);
}

/** A value that stands nowhere else. */
const unmistakable = (what: string) => `${what}-${randomBytes(6).toString('hex')}`;

/** Every row of every table as text, as a dump has it and more: what Postgres knows of itself too. */
async function dump(database: TestDatabase): Promise<Map<string, string>> {
  const tables = await database.asOwner<{ name: string }>(
    `select format('%I.%I', schemaname, tablename) as name from pg_tables`,
  );
  const dumped = new Map<string, string>();
  for (const { name } of tables) {
    const rows = await database.asOwner<{ row: string }>(`select t::text as row from ${name} t`);
    dumped.set(name, rows.map(({ row }) => row).join('\n'));
  }
  return dumped;
}

/** The bytes of all files of the memory index; what is compressed in them is read in libs/memory/src/forget.int.spec.ts. */
async function files(): Promise<Map<string, string>> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  const names = found.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  const all = await Promise.all(names.map(async (name) => [name, (await readFile(name)).toString('latin1')] as const));
  return new Map(all);
}

/** Every key of Redis with what it holds. */
async function everythingIn(redis: Redis): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  for (const key of await redis.keys('*')) {
    const dumped = await redis.dumpBuffer(key);
    const type = await redis.type(key);
    const value = type === 'hash' ? JSON.stringify(await redis.hgetall(key)) : '';
    all.set(key, `${key} ${value} ${dumped?.toString('latin1') ?? ''}`);
  }
  return all;
}

function aMail(
  messageId: string,
  from: SourceMessage['from'],
  to: SourceMessage['to'],
  more: Partial<SourceMessage> = {},
): SourceMessage {
  return {
    messageId,
    inReplyTo: null,
    references: [],
    from,
    to,
    cc: [],
    listAddress: null,
    subject: `Mail ${messageId}`,
    sentAt: new Date('2024-01-01T10:00:00Z'),
    text: '',
    truncated: false,
    attachments: [],
    contentHash: messageId,
    ...more,
  };
}

/** In which of some texts values are found: as they are, in other letters, or as bytes that are shown in hex. */
function findings(texts: ReadonlyMap<string, string>, values: readonly string[]): string[] {
  return [...texts].flatMap(([name, content]) => {
    const small = content.toLowerCase();
    const found = values.filter((value) =>
      [value.toLowerCase(), Buffer.from(value).toString('hex')].some((each) => small.includes(each)),
    );
    return found.length > 0 ? [`${name}: ${found.join(', ')}`] : [];
  });
}

test('nothing of an erased subject is left in the database, and the log replays to what is there', async () => {
  const name = unmistakable('Ada Lovelace');
  const [mail, laterMail] = [`${unmistakable('ada')}@example.com`, `${unmistakable('later')}@example.org`];
  const [phone, laterPhone] = [unmistakable('+44 20'), unmistakable('+33 1')];
  const handle = name.toLowerCase().replaceAll(' ', '-');
  const secrets = [name, mail, laterMail, phone, laterPhone, handle];
  erasedValues.push(...secrets);

  const key = `import ${mail}`;
  const input = { name, email: mail, phone, stage: 'Lead' };
  const id = await contact(input, key);
  const { createNote } = await system.api.data(
    `mutation ($contact: ID!) { createNote(input: { title: "called", contactId: $contact }) { id } }`,
    { contact: id },
  );
  for (const changes of [{ email: laterMail }, { phone: laterPhone }, { stage: 'Customer' }]) await update(id, changes);
  // Up to a snapshot, and in builds that were live before and are kept.
  await Promise.all(
    Array.from({ length: 100 }, (_, n) => update(id, { birthday: `18${String(n).padStart(2, '0')}-12-10` })),
  );
  // Mail of theirs, to them, and about them; it came in by an upload, which has one more that could not be read.
  const others = { address: 'bob@example.net', name: 'Bob' };
  const them = { address: laterMail, name };
  const mails = [
    aMail('1', them, [others], { text: `Yours, ${name}, ${phone}` }),
    aMail('2', others, [them], { text: `Dear ${name}, is ${mail} yours?`, inReplyTo: '1' }),
    aMail('3', others, [others], { subject: `About ${name}`, text: `${name}: ${phone}` }),
  ];
  const upload = await blobs.put(OURS, `${mail}.mbox`, Readable.from([Buffer.from(`From: ${name} <${mail}>`)]));
  const { job, claim } = await system.database.app.transaction(OURS, async (tx) => {
    const started = await startSyncJob(tx, { tenant: OURS, integration: 'mbox', importId: upload.id, bytesTotal: 1 });
    const claimed = (await claimSyncJob(tx, started.id, 'test'))!;
    await ingestMessages(tx, { tenant: OURS, jobId: started.id, source: 'mbox', messages: mails });
    await quarantine(tx, claimed.claim, upload.id, [{ offset: 0, code: 'MAIL_NO_SENDER', reason: `From: ${mail}` }]);
    return claimed;
  });
  await indexPending({ ...memory, db: system.database.app, tenant: OURS });
  const redis = await aRedis();
  const queues = new JobQueues(redis);
  const relay = new OutboxRelay(system.database.system, queues, (error) => faults.push(error));
  await caughtUp();
  await eventually(
    'a dead letter',
    async () => (await system.database.asOwner('select 1 from projection_dead_letters')).length > 0,
  );
  await system.rebuilt();
  await system.database.asOwner('analyze');
  const before = findings(await dump(system.database), secrets).map((line) => line.split(':')[0]);
  // The places where it is known to be before: a search that finds nothing there would find nothing afterwards.
  for (const place of [
    'model_contact',
    'model_contact__b1',
    'history_contact',
    'history_contact__b1',
    'command_answers',
    'projection_dead_letters',
    'memory_records',
    'graph_nodes',
    'blobs',
    'quarantined_records',
  ])
    expect(before).toContain(`public.${place}`);

  const document = await exported(id);
  expect(document).toMatchObject({
    format: 'atomo subject 1',
    subject: { model: 'Contact', id },
    record: { id, version: 104, name, email: laterMail, phone: laterPhone, stage: 'Customer', deletedAt: null },
    referredToBy: [{ model: 'Note', id: createNote.id, by: 'contactId' }],
    addresses: [mail, laterMail],
    people: [{ name, address: laterMail }],
    messages: expect.arrayContaining([
      expect.objectContaining({ messageId: '1', from: them, text: `Yours, ${name}, ${phone}` }),
      expect.objectContaining({ messageId: '2', recipients: [{ ...them, role: 'to' }] }),
    ]),
    erasures: [],
    complete: true,
  });
  expect(document.messages).toHaveLength(2);
  expect(document.history.map(({ version }: Json) => version)).toEqual(Array.from({ length: 104 }, (_, n) => n + 1));
  expect(document.history[0]).toMatchObject({ action: 'created', values: { ...input, handle } });
  expect(document.audit).toHaveLength(104);
  expect(document.audit[0]).toMatchObject({ action: 'Contact.updated', actor: `user:${OURS}` });

  const erasure = await erase(id);
  expect(erasure).toMatchObject({ model: 'Contact', recordId: id, version: 105, completedAt: null });
  const emptied = { name: null, handle: null, email: null, phone: null, birthday: null };
  expect(await read(id)).toEqual({ id, version: 105, ...emptied, stage: 'Customer', deletedAt: null });
  // The upload stays as long as it is read; nothing else of them does, nor what else it brings of before.
  expect(await erasures.look()).toBe(0);
  expect(faults.splice(0)).toMatchObject([{ code: 'ERASURE_WAITS_FOR_IMPORT' }]);
  const left = findings(await dump(system.database), secrets).map((line) => line.split(':')[0]);
  expect(left.toSorted()).toEqual(['pg_catalog.pg_statistic', 'public.blob_pieces', 'public.blobs']);
  await system.database.app.transaction(OURS, async (tx) => {
    const more = [...mails, aMail('4', them, [others]), aMail('5', others, [them])];
    await ingestMessages(tx, { tenant: OURS, jobId: job.id, source: 'mbox', messages: more });
    await completeSyncJob(tx, claim);
  });
  await system.database.asOwner('update subject_erasures set next_attempt_at = now()');
  expect(await erasures.look()).toBe(1);
  await caughtUp();
  relay.kick();
  await relay.stop();
  expect(findings(await everythingIn(redis), [...secrets, job.id])).not.toEqual([]);
  expect(findings(await everythingIn(redis), secrets)).toEqual([]);
  await queues.close();
  await redis.quit();
  expect(findings(await dump(system.database), secrets)).toEqual([]);
  expect(findings(await files(), secrets)).toEqual([]);

  // It is told of, who did it and why, and what it was about is still there.
  const { contactHistory, note, subjectErasures } = await system.api.data(
    `query ($id: ID!, $note: ID!) {
       contactHistory(id: $id, first: 1) { nodes { action actor changes { field before after } } }
       note(id: $note) { contact { id name } }
       subjectErasures(model: "Contact", id: $id) { nodes { completedAt lastError attempts } } }`,
    { id, note: createNote.id },
  );
  expect(findings(new Map([['export', JSON.stringify(await exported(id))]]), secrets)).toEqual([]);
  expect(contactHistory.nodes[0]).toMatchObject({ action: 'erased', actor: `user:${OURS}` });
  expect(contactHistory.nodes[0].changes.map(({ before: was, after }: Json) => [was, after])).toEqual(
    Array.from({ length: 5 }, () => [null, null]),
  );
  expect(note.contact).toEqual({ id, name: null });
  expect(subjectErasures.nodes).toEqual([{ completedAt: expect.any(String), lastError: null, attempts: 2 }]);
  const [logged] = await system.database.asOwner<Json>(
    `select e.metadata, a.fields from event_log e join audit_log a using (position) where e.type = 'Contact.erased'`,
  );
  expect(logged).toMatchObject({ metadata: { actor: `user:${OURS}`, reason: 'asked to' } });
  expect(logged.fields.toSorted()).toEqual(['birthday', 'email', 'handle', 'name', 'phone']);

  // Its unique values are free, and a repeat of what made it makes nobody again.
  const again = (answer: Json) => answer.errors?.[0].extensions.code ?? Object.keys(answer.data);
  const other = unmistakable('key');
  const second = await contact({ ...input, name: 'Another' }, other);
  await erase(second);
  await erasures.look();
  expect(again(await system.api.ask(CREATE, { input: { ...input, name: 'Another' }, key: other }))).toBe('CONFLICT');
  await caughtUp();
  expect((await system.rebuilt()).differences).toEqual([]);
});

test('subscribers are told, also those whose condition it does not meet any more', async () => {
  const name = unmistakable('Grace');
  const id = await contact({ name, stage: 'Customer' });
  const [{ after }] = (await system.database.asOwner('select max(position)::text as after from event_log')) as [Json];
  await erase(id);
  const told = await system.follow(
    `subscription ($after: String, $where: ContactWhere) {
       contactChanged(after: $after, where: $where) { type id contact { name } } }`,
    { after, where: { name: { equals: name } } },
    1,
  );
  expect(told).toEqual([{ type: 'ERASED', id, contact: null }]);
  await erasures.look();
});

test('what is written later stays, also while the erasure is under way, and again it is erased', async () => {
  const id = await contact({ name: 'Mary', email: 'mary@example.com', phone: '1' });
  await Promise.all([
    ...Array.from({ length: 10 }, (_, n) => update(id, { phone: `before ${n}` })),
    erase(id),
    ...Array.from({ length: 10 }, (_, n) => update(id, { phone: `after ${n}` })),
  ]);
  await update(id, { email: 'again@example.com' });
  const { phone } = await read(id);
  expect(await erasures.look()).toBe(1);
  expect(await read(id)).toMatchObject({ name: null, email: 'again@example.com', phone });
  const { contactHistory } = await system.api.data(
    `query ($id: ID!) { contactHistory(id: $id, first: 100) { nodes { action record { name email phone } } } }`,
    { id },
  );
  const actions = contactHistory.nodes.map(({ action }: Json) => action);
  expect(contactHistory.nodes[0].record).toEqual({ name: null, email: 'again@example.com', phone });
  for (const { record } of contactHistory.nodes.slice(actions.indexOf('erased')))
    expect(record).toEqual({ name: null, email: null, phone: null });
  await caughtUp();
  expect((await system.rebuilt()).differences).toEqual([]);

  await erase(id);
  expect(await erasures.look()).toBe(1);
  expect(await read(id)).toMatchObject({ name: null, email: null, phone: null });
  const keys = `select generation from subject_keys where subject = $1 and wrapped is not null`;
  expect(await system.database.asOwner(keys, [`Contact-${id}`])).toEqual([{ generation: 3 }]);
});

test('an older version brings back nothing of what was erased, not even before the erasure is carried out', async () => {
  const id = await contact({ name: 'Rosalind', phone: '7', stage: 'Customer' });
  await update(id, { stage: null });
  await erase(id);
  const restore = `mutation ($id: ID!, $version: Int) { restoreContact(id: $id, version: $version) { name phone stage } }`;
  const { restoreContact } = await system.api.data(restore, { id, version: 1 });
  expect(restoreContact).toEqual({ name: null, phone: null, stage: 'Customer' });
  expect(await erasures.look()).toBe(1);
});

test('a deleted record is erased too, and stays deleted since when it was', async () => {
  const id = await contact({ name: 'Emmy', phone: '5' });
  await system.api.data('mutation ($id: ID!) { deleteContact(id: $id) { id } }', { id });
  const { deletedAt } = await read(id);
  await erase(id);
  expect(await read(id)).toMatchObject({ name: null, phone: null, version: 3, deletedAt });
  await erasures.look();
  await caughtUp();
  expect((await system.rebuilt()).differences).toEqual([]);
  await system.api.data('mutation ($id: ID!) { restoreContact(id: $id) { id } }', { id });
  expect(await read(id)).toMatchObject({ name: null, deletedAt: null });
});

test('one that was cut short anywhere goes on, and is told of until it is over', async () => {
  const secret = unmistakable('Hypatia');
  const id = await contact({ name: secret, stage: 'Lead' });
  await caughtUp();
  await erase(id);
  const list = `query ($id: ID!) { subjectErasures(model: "Contact", id: $id) { nodes { completedAt lastError attempts } } }`;
  const state = async () => (await system.api.data(list, { id })).subjectErasures.nodes[0];
  // What the system role lacks for a while, so that it fails in each of its steps.
  const rights = ['delete on stream_snapshots', 'update on history_contact', 'update on projection_dead_letters'];
  const ended = 'update (completed_at) on subject_erasures';
  await system.database.asOwner('revoke update on subject_erasures from atomo_system');
  const others = 'sought, log_erased_at, attempts, next_attempt_at, last_error';
  await system.database.asOwner(`grant update (${others}) on subject_erasures to atomo_system`);
  for (const right of rights) await system.database.asOwner(`revoke ${right} from atomo_system`);
  for (const [attempts, right] of [...rights, ended].entries()) {
    const [before] = await system.database.asOwner<{ at: Date }>('select clock_timestamp() as at');
    expect(await erasures.look()).toBe(0);
    expect(faults.splice(0)).toHaveLength(1);
    expect(await state()).toEqual({ completedAt: null, lastError: 'INTERNAL_ERROR', attempts: attempts + 1 });
    await system.database.asOwner(`grant ${right} to atomo_system`);
    // Not at once, so that others have their turn.
    const later = await system.database.asOwner(
      `update subject_erasures set next_attempt_at = next_attempt_at + interval '1 hour'
       where completed_at is null and next_attempt_at > $1::timestamptz + interval '400 milliseconds' returning 1`,
      [before!.at],
    );
    expect(later).toHaveLength(1);
    expect(await erasures.look()).toBe(0);
    await system.database.asOwner('update subject_erasures set next_attempt_at = now()');
  }
  await system.database.asOwner('grant update on subject_erasures to atomo_system');
  expect(await erasures.look()).toBe(1);
  expect(await state()).toEqual({ completedAt: expect.any(String), lastError: null, attempts: 5 });
  expect(findings(await dump(system.database), [secret])).toEqual([]);
});

test('it is refused to who is no Admin, and where there is nothing to erase', async () => {
  const id = await contact({ name: 'Sophie' });
  const code = async (variables: object): Promise<string> => {
    const { errors } = await system.api.ask(ERASE, { id, ...variables });
    return errors![0]!.extensions!['code'];
  };
  expect(await code({ id: uuidv7() })).toBe('NOT_FOUND');
  expect(await code({ id: 'x' })).toBe('NOT_FOUND');
  expect(await code({ model: 'Nobody' })).toBe('VALIDATION_ERROR');
  expect(await code({ model: 'Note', id })).toBe('NOT_FOUND');
  const { createNote } = await system.api.data('mutation { createNote(input: { title: "x" }) { id } }');
  expect(await code({ model: 'Note', id: createNote.id })).toBe('VALIDATION_ERROR');
  expect(await code({ reason: '  ' })).toBe('VALIDATION_ERROR');
  expect(await code({ reason: 'x'.repeat(1_001) })).toBe('VALIDATION_ERROR');
  expect(await code({ seen: 7 })).toBe('CONFLICT');
  callers.role = 'Viewer';
  expect(await code({})).toBe('FORBIDDEN');
  callers.role = 'Admin';
  expect((await system.api.ask(ERASE, { id }, SHOP_TENANTS[1])).errors![0]!.extensions!['code']).toBe('NOT_FOUND');
  await system.api.data('mutation ($id: ID!) { purgeContact(id: $id) { id } }', { id });
  expect(await code({})).toBe('NOT_FOUND');
});

test('the log, brought to an empty database, replays to the same', async () => {
  await caughtUp();
  const copy = await aDatabase(contentCoreMigrations, { poolSize: 6 });
  try {
    await createModelTables(copy.url, SCHEMA);
    const key = checkpointKey('the secret of this test');
    let text = '';
    await exportLog(system.database.system, { key, tenant: undefined, write: (lines) => void (text += lines) });
    await importLog(copy.url, Readable.from(text.slice(0, -1).split('\n')), { key });
    await replayLog({
      databaseUrl: copy.url,
      database: copy.system,
      projections: projectionsOf(SCHEMA, system.codec),
      decode: (tx, events) => system.codec.decode(tx, events),
      isAgain: false,
    });
    for (const table of ['model_contact', 'model_note', 'history_contact', 'history_note', 'audit_log']) {
      const rows = (database: TestDatabase) =>
        database.asOwner<{ row: string }>(`select t::text as row from ${table} t order by 1`);
      const [ours, theirs] = await Promise.all([rows(system.database), rows(copy)]);
      expect(ours.length).toBeGreaterThan(0);
      expect([table, theirs]).toEqual([table, ours]);
    }
    expect(findings(await dump(copy), erasedValues)).toEqual([]);
  } finally {
    await copy.drop();
  }
});
