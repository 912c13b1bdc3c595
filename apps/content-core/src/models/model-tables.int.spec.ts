import { randomUUID } from 'node:crypto';
import { resolve } from 'node:path';
import type { TenantId } from '@atomo-cc/kernel';
import {
  boolean,
  defineSchema,
  email,
  integer,
  model,
  text,
  type ModelDefinition,
  type SchemaDefinition,
} from '@atomo-cc/schema';
import { changeTables } from '@atomo-cc/platform/postgres';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { contentCoreMigrations } from '../migrations.js';
import { loadSchema } from './load-schema.js';
import {
  applyMigration,
  completeModelTable,
  createModelTable,
  createModelTables,
  planMigration,
  sentenceOf,
} from './model-tables.js';
import { declaredName } from './schema-diff.js';

const TENANT = '00000000-0000-7000-8000-000000000001' as TenantId;
const OTHER = '00000000-0000-7000-8000-000000000002' as TenantId;
/** A limit for a busy machine, not for the promise. */
jest.setTimeout(120_000);

let blog: SchemaDefinition;
let database: TestDatabase;
beforeAll(async () => {
  blog = await loadSchema(resolve(__dirname, '../../../../services/blog'));
});
beforeEach(async () => {
  database = await aDatabase(contentCoreMigrations);
  await createModelTables(database.url, blog);
});
afterEach(() => database.drop());

/** The blog with one model changed. */
function changed(name: string, change: (model: ModelDefinition) => Partial<ModelDefinition>): SchemaDefinition {
  return { ...blog, models: blog.models.map((each) => (each.name === name ? { ...each, ...change(each) } : each)) };
}

/** The fields of an author, one of them with other settings. */
function author(field: string, settings: Record<string, unknown>): SchemaDefinition {
  return changed('Author', ({ fields }) => ({
    fields: fields.map((each) => (each.name === field ? { ...each, ...settings } : each)),
  }));
}

function withoutAuthorField(name: string): SchemaDefinition {
  return changed('Author', ({ fields }) => ({ fields: fields.filter((field) => field.name !== name) }));
}

/** An author as the commands write them, under their role. */
async function insertAuthor(values: Record<string, unknown>, tenant = TENANT): Promise<string> {
  const id = randomUUID();
  const names = Object.keys(values);
  await database.app.transaction(tenant, (tx) =>
    tx.execute(
      `insert into model_author (tenant_id, id, version, created_at, updated_at${names.map((name) => `, "${name}"`).join('')})
       values ($1, $2, 1, now(), now()${names.map((_, at) => `, $${at + 3}`).join('')})`,
      [tenant, id, ...Object.values(values)],
    ),
  );
  return id;
}

const columnsOf = async (table: string) =>
  (
    await database.asOwner<{ name: string }>(
      `select attname::text as name from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped`,
      [table],
    )
  ).map(({ name }) => name);

const authors = () => database.system.transaction((tx) => tx.query('select * from model_author'));

const said = (report: { steps: readonly Parameters<typeof sentenceOf>[0][] }) => report.steps.map(sentenceOf);

test('a schema gets its tables, and there is nothing to do afterwards, at the start or when asked', async () => {
  expect(await columnsOf('link_post_tags')).toEqual(['tenant_id', 'owner_id', 'target_id']);
  expect(await createModelTables(database.url, blog)).toEqual({ steps: [], drift: [], left: [] });
  expect(await planMigration(database.url, blog)).toEqual({ steps: [], drift: [], left: [] });
  expect(await applyMigration(database.url, blog)).toEqual({ steps: [], drift: [], left: [] });
});

test('what is unique is so in each tenant, and among records that have a value', async () => {
  await insertAuthor({ email: 'a@example.org' });
  await insertAuthor({ email: 'a@example.org' }, OTHER);
  await insertAuthor({});
  await insertAuthor({});
  const again = insertAuthor({ email: 'a@example.org' });
  await expect(again).rejects.toMatchObject({
    code: '23505',
    constraint: expect.stringMatching(/^uq_author_email_[0-9a-f]{8}$/),
  });
});

test('checks hold in the database as in the commands', async () => {
  const insert = (stage: string) =>
    database.app.transaction(TENANT, (tx) =>
      tx.execute(
        `insert into model_post (tenant_id, id, version, created_at, updated_at, stage) values ($1, $2, 1, now(), now(), $3)`,
        [TENANT, randomUUID(), stage],
      ),
    );
  await insert('Draft');
  await expect(insert('Published')).rejects.toMatchObject({
    code: '23514',
    constraint: expect.stringMatching(/^ck_post_/),
  });
});

test('many processes at once make the same, once; builds beside the live table get the new column too', async () => {
  await insertAuthor({ name: 'Ada' });
  const before = blog.models.find(({ name }) => name === 'Author')!;
  await changeTables(database.url, (tx) => createModelTable(tx, before, 'model_author__b2'));
  const wider = changed('Author', ({ fields }) => ({
    fields: [...fields, { ...fields.find(({ name }) => name === 'homepage')!, name: 'motto' }],
    indexes: [['user'], ['motto']],
    uniques: [...before.uniques, { fields: ['motto', 'name'], where: null, message: null }],
  }));
  const reports = await Promise.all(Array.from({ length: 3 }, () => createModelTables(database.url, wider)));
  expect(reports.map(({ steps }) => steps.length).sort((a, b) => a - b)).toEqual([0, 0, 3]);
  for (const table of ['model_author', 'history_author', 'model_author__b2']) {
    expect(await columnsOf(table)).toContain('motto');
  }
  expect(await authors()).toMatchObject([{ name: 'Ada', motto: null }]);
});

test('a new demand without a default stops where there are rows, until it is allowed', async () => {
  const demanding = changed('Author', ({ fields }) => ({
    fields: [...fields, { ...fields.find(({ name }) => name === 'homepage')!, name: 'motto', required: true }],
  }));
  await insertAuthor({ name: 'Ada' });
  await expect(createModelTables(database.url, demanding)).rejects.toMatchObject({
    code: 'SCHEMA_NEEDS_MIGRATION',
    message: expect.stringMatching(/npm run migrate -- plan.*1 row .*--allow require:Author\.motto/),
  });
  await expect(applyMigration(database.url, demanding)).rejects.toMatchObject({ code: 'MIGRATION_REFUSED' });
  expect(await columnsOf('model_author')).not.toContain('motto');
  await applyMigration(database.url, demanding, ['require:Author.motto']);
  expect(await createModelTables(database.url, demanding)).toEqual({ steps: [], drift: [], left: [] });
});

test('a field that is declared no longer stays until it is dropped by name', async () => {
  await insertAuthor({ name: 'Ada', homepage: 'https://example.org' });
  const narrow = withoutAuthorField('homepage');
  const { steps, left } = await createModelTables(database.url, narrow);
  expect(steps).toEqual([]);
  expect(left.map(sentenceOf)).toEqual([
    expect.stringMatching(/^Author\.homepage: drop column homepage .*--allow drop:Author\.homepage\.$/),
  ]);
  expect((await applyMigration(database.url, narrow)).left).toMatchObject([{ rows: 1, what: 'Author.homepage' }]);
  expect(await columnsOf('model_author')).toContain('homepage');
  await applyMigration(database.url, narrow, ['drop:Author.homepage']);
  for (const table of ['model_author', 'history_author']) expect(await columnsOf(table)).not.toContain('homepage');
  expect(await applyMigration(database.url, narrow)).toEqual({ steps: [], drift: [], left: [] });
});

test('nothing is dropped unasked, also not what is empty', async () => {
  const { left } = await applyMigration(database.url, withoutAuthorField('homepage'));
  expect(left.map(sentenceOf)).toEqual([expect.stringMatching(/\. Allow it with --allow drop:Author\.homepage\.$/)]);
  expect(await columnsOf('model_author')).toContain('homepage');
});

test('what may be a rename is asked about, and one that is declared keeps the values', async () => {
  await insertAuthor({ name: 'Ada', email: 'a@example.org' });
  await expect(createModelTables(database.url, author('name', { name: 'fullName' }))).rejects.toThrow(
    /say formerly\('name'\) .*--allow add:Author\.fullName/,
  );
  const renamed = author('name', { name: 'fullName', formerly: ['name'] });
  expect(said(await planMigration(database.url, renamed))).toEqual([
    expect.stringMatching(/^Author\.name: rename it to fullName, with its values/),
  ]);
  expect(await columnsOf('model_author')).toContain('name');
  await createModelTables(database.url, renamed);
  expect(await authors()).toMatchObject([{ full_name: 'Ada' }]);
  expect(await columnsOf('history_author')).toContain('full_name');
  expect(await applyMigration(database.url, renamed)).toEqual({ steps: [], drift: [], left: [] });
});

test('a key follows the field it is of when that is renamed', async () => {
  await insertAuthor({ name: 'Ada', email: 'a@example.org' });
  const renamed = changed('Author', ({ fields }) => ({
    fields: fields.map((field) => (field.name === 'email' ? { ...field, name: 'mail', formerly: ['email'] } : field)),
    uniques: [{ fields: ['mail'], where: null, message: null }],
  }));
  await createModelTables(database.url, renamed);
  await expect(insertAuthor({ mail: 'a@example.org' })).rejects.toMatchObject({
    constraint: expect.stringMatching(/^uq_author_mail_/),
  });
  expect(await planMigration(database.url, renamed)).toEqual({ steps: [], drift: [], left: [] });
});

test('another type stops; a wider one is taken when applied, another only when allowed, and nothing is half done', async () => {
  const first = defineSchema({ models: { Box: model({ fields: { size: integer(), code: text() } }) } });
  const next = (size: string, code: string): SchemaDefinition => ({
    ...first,
    models: first.models.map((box) => ({
      ...box,
      fields: box.fields.map((field) => ({ ...field, type: (field.name === 'size' ? size : code) as 'text' })),
    })),
  });
  await createModelTables(database.url, first);
  const put = (size: number, code: string) =>
    database.app.transaction(TENANT, (tx) =>
      tx.execute(
        `insert into model_box (tenant_id, id, version, created_at, updated_at, size, code) values ($1, $2, 1, now(), now(), $3, $4)`,
        [TENANT, randomUUID(), size, code],
      ),
    );
  await put(3, '12');
  const wider = next('number', 'text');
  await expect(createModelTables(database.url, wider)).rejects.toMatchObject({ code: 'SCHEMA_NEEDS_MIGRATION' });
  await applyMigration(database.url, wider);
  const other = next('number', 'integer');
  await expect(applyMigration(database.url, other)).rejects.toThrow(/1 row .*--allow type:Box\.code/);
  const allowed = ['type:Box.code'];
  await put(4, 'x');
  await expect(applyMigration(database.url, other, allowed)).rejects.toThrow(/Nothing was changed\. Box\.code: .*"x"/);
  await database.system.transaction((tx) => tx.execute(`delete from model_box where code = 'x'`));
  await applyMigration(database.url, other, allowed);
  const rows = await database.system.transaction((tx) => tx.query('select size, code from model_box'));
  expect(rows).toEqual([{ size: 3, code: 12 }]);
});

test('the type of a field changes under a key and a check that name it, in the tables of retired builds too', async () => {
  const first = defineSchema({
    models: {
      Box: model({
        fields: { code: text().max(20), shut: boolean() },
        unique: [{ fields: ['code'], where: { shut: { equals: true } } }],
        checks: [{ where: { shut: { not: false } }, message: 'Shut.' }],
      }),
    },
  });
  const next = defineSchema({
    models: {
      Box: model({
        fields: { code: text().max(20), shut: text().max(20) },
        unique: [{ fields: ['code'], where: { shut: { equals: 'true' } } }],
        checks: [{ where: { shut: { not: 'false' } }, message: 'Shut.' }],
      }),
    },
  });
  const box = first.models.find(({ name }) => name === 'Box')!;
  await createModelTables(database.url, first);
  await changeTables(database.url, async (tx) => {
    await createModelTable(tx, box, 'model_box__b2');
    await completeModelTable(tx, box, 'model_box__b2');
  });
  const put = (code: string) =>
    database.app.transaction(TENANT, (tx) =>
      tx.execute(
        `insert into model_box (tenant_id, id, version, created_at, updated_at, code, shut) values ($1, $2, 1, now(), now(), $3, 'true')`,
        [TENANT, randomUUID(), code],
      ),
    );
  await put('a');
  await applyMigration(database.url, next);
  expect(await applyMigration(database.url, next)).toMatchObject({ steps: [], drift: [] });
  await expect(put('a')).rejects.toMatchObject({ code: '23505' });
  await put('b');
});

test('what others have made of a column stands against its change, and is named', async () => {
  await database.asOwner('create view links as select id, homepage from model_author');
  const refused = applyMigration(database.url, withoutAuthorField('homepage'), ['drop:Author.homepage']);
  await expect(refused).rejects.toMatchObject({
    code: 'MIGRATION_REFUSED',
    message: expect.stringMatching(/^Nothing was changed\. Author\.homepage: cannot drop column homepage .*depend/),
  });
  expect(await columnsOf('model_author')).toContain('homepage');
});

test('a change is counted in records, however many tables they stand in', async () => {
  const id = await insertAuthor({ homepage: 'https://example.org' });
  const rows = `select tenant_id, id, version, created_at, updated_at, homepage`;
  await database.asOwner(
    `insert into history_author (tenant_id, id, version, created_at, updated_at, homepage, valid_from, valid_to)
     ${rows}, now(), 'infinity' from (${rows} from model_author where id = '${id}') a`,
  );
  const { left } = await planMigration(database.url, withoutAuthorField('homepage'));
  expect(left.map(({ rows: count }) => count)).toEqual([1]);
});

test('records that are alike stand against a key, whatever is allowed, and are named', async () => {
  const [one, two] = [await insertAuthor({ user: 'u' }), await insertAuthor({ user: 'u' })];
  await insertAuthor({ user: 'u' }, OTHER);
  const unique = changed('Author', ({ fields, uniques }) => ({
    fields: [...fields, { ...fields.find(({ name }) => name === 'homepage')!, name: 'motto' }],
    uniques: [...uniques, { fields: ['user'], where: null, message: null }],
  }));
  await expect(createModelTables(database.url, unique)).rejects.toThrow(/2 rows .* are alike/);
  const refused = applyMigration(database.url, unique, ['add:Author.user']);
  await expect(refused).rejects.toThrow(new RegExp(`${one}|${two}`));
  expect(await columnsOf('model_author')).not.toContain('motto');
  await database.system.transaction((tx) => tx.execute(`update model_author set "user" = 'v' where id = $1`, [one]));
  await createModelTables(database.url, unique);
  await expect(insertAuthor({ user: 'v' })).rejects.toMatchObject({ code: '23505' });
});

test('a key among some records alone holds among those', async () => {
  const partial = defineSchema({
    models: {
      Member: model({
        fields: { mail: email(), active: boolean() },
        unique: [{ fields: ['mail'], where: { active: { equals: true } } }],
      }),
    },
  });
  await createModelTables(database.url, partial);
  const put = (isActive: boolean) =>
    database.app.transaction(TENANT, (tx) =>
      tx.execute(
        `insert into model_member (tenant_id, id, version, created_at, updated_at, mail, active) values ($1, $2, 1, now(), now(), 'a', $3)`,
        [TENANT, randomUUID(), isActive],
      ),
    );
  await put(false);
  await put(false);
  await put(true);
  await expect(put(true)).rejects.toMatchObject({ code: '23505' });
});

test('a rule that became narrower stops where rows break it, until it is allowed', async () => {
  await insertAuthor({ name: 'Ada' });
  const shorter = author('name', { maxLength: 2 });
  await expect(createModelTables(database.url, shorter)).rejects.toThrow(/1 row .*--allow narrow:Author\.name/);
  await expect(applyMigration(database.url, shorter)).rejects.toMatchObject({ code: 'MIGRATION_REFUSED' });
  await applyMigration(database.url, shorter, ['narrow:Author.name']);
  expect(await createModelTables(database.url, shorter)).toEqual({ steps: [], drift: [], left: [] });
});

test('a check that rows break is held for what is written from then on, when that is allowed', async () => {
  await insertAuthor({ user: 'nobody' });
  const checked = changed('Author', () => ({
    checks: [
      {
        condition: { op: 'notEquals' as const, field: 'user', operand: { value: 'nobody' } },
        message: 'Somebody.',
        field: 'user',
      },
    ],
  }));
  await expect(createModelTables(database.url, checked)).rejects.toThrow(/--allow check:Author\.user/);
  await applyMigration(database.url, checked, ['check:Author.user']);
  await expect(insertAuthor({ user: 'nobody' })).rejects.toMatchObject({ code: '23514' });
  expect(await createModelTables(database.url, checked)).toEqual({ steps: [], drift: [], left: [] });
});

test('what somebody else has taken away is told, and made again', async () => {
  const [index] = await database.asOwner<{ name: string }>(
    `select indexname::text as name from pg_indexes where tablename = 'model_author' and indexname like 'uq_author_email_%'`,
  );
  await database.asOwner(`drop index ${index!.name}`);
  const told = [`Author: unique index ${index!.name} of model_author was taken away by somebody else.`];
  expect((await planMigration(database.url, blog)).drift).toEqual(told);
  const { drift, steps } = await createModelTables(database.url, blog);
  expect(drift).toEqual(told);
  expect(steps).toHaveLength(1);
  expect(await createModelTables(database.url, blog)).toEqual({ steps: [], drift: [], left: [] });
});

test('a key whose name is taken by a table beside gets a number behind it, and is known by its own', async () => {
  await database.asOwner('alter table model_author rename to model_author__b1');
  await createModelTables(database.url, blog);
  await insertAuthor({ email: 'a@example.org' });
  const error = await insertAuthor({ email: 'a@example.org' }).catch((reason: { constraint: string }) => reason);
  const { constraint } = error as { constraint: string };
  expect(constraint).toMatch(/__1$/);
  expect(declaredName(constraint)).toMatch(/^uq_author_email_[0-9a-f]{8}$/);
  expect(await createModelTables(database.url, blog)).toEqual({ steps: [], drift: [], left: [] });
});

test('a rebuilt table that takes the place of the live one lacks nothing of it', async () => {
  const model = blog.models.find(({ name }) => name === 'Author')!;
  const build = 'model_author__b2';
  await changeTables(database.url, (tx) => createModelTable(tx, model, build));
  // Twice: a build may be switched to again.
  for (const _ of [1, 2]) await changeTables(database.url, (tx) => completeModelTable(tx, model, build));
  await database.asOwner('alter table model_author rename to model_author__b1');
  await database.asOwner(`alter table ${build} rename to model_author`);
  expect(await planMigration(database.url, blog)).toEqual({ steps: [], drift: [], left: [] });
  await insertAuthor({ email: 'a@example.org' });
  await expect(insertAuthor({ email: 'a@example.org' })).rejects.toMatchObject({ code: '23505' });
});

test('a model that is declared no longer keeps its tables until they are dropped by name', async () => {
  const without = { ...blog, models: blog.models.filter(({ name }) => name !== 'Comment') };
  const { left } = await createModelTables(database.url, without);
  expect(left.map(({ what }) => what)).toEqual(['model_comment']);
  await applyMigration(database.url, without, ['drop:model_comment']);
  expect(await columnsOf('history_comment')).toEqual([]);
});
