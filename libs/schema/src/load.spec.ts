import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { isCodedError } from '@atomo-cc/kernel';
import { grantOf } from './access.js';
import { describeSchema } from './describe.js';
import { defineSchema } from './define-schema.js';
import {
  belongsTo,
  block,
  blocks,
  boolean,
  datetime,
  decimal,
  email,
  enumeration,
  geoPoint,
  hasMany,
  integer,
  json,
  manyToMany,
  number,
  slug,
  text,
} from './dsl.js';
import { schemaFrom } from './load.js';
import { readSchema, type ModelDefinition, type SchemaDefinition } from './model.js';
import { validateInput } from './validation.js';

const SERVICES = resolve(__dirname, '../../../services');
/** What `@atomo-cc/schema` is to the files of these tests, which lie elsewhere. */
const INDEX = join(__dirname, 'index.ts');
const SKETCH = join(SERVICES, 'sketch/schema.ts');

let folder: string;
let files = 0;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'schema-'))));
afterAll(() => rmSync(folder, { recursive: true }));

/** Loads a file with this text; each has a name of its own, because modules are loaded once. */
function load(source: string): Promise<SchemaDefinition> {
  files += 1;
  const file = join(folder, `schema${files}.ts`);
  writeFileSync(file, source);
  return schemaFrom(file);
}

/** The lines that tell faults, without the file's number. */
async function faultsOf(source: string): Promise<string[]> {
  const error: unknown = await load(source).then(
    () => new Error('there are none'),
    (reason: unknown) => reason,
  );
  if (!isCodedError(error)) throw error;
  expect(error.code).toBe('SCHEMA_INVALID');
  const [head, ...faults] = error.message.split('\n');
  expect(head).toContain(join(folder, `schema${files}.ts: `));
  const told = faults.length > 0 ? faults : [head!];
  return told.map((fault) => fault.trim().replaceAll(`schema${files}.ts`, 'schema.ts'));
}

const modelOf = (schema: SchemaDefinition, name: string): ModelDefinition =>
  schema.models.find((model) => model.name === name)!;
const reading = (schema: SchemaDefinition, model: string, role: string) =>
  grantOf(modelOf(schema, model), 'read', role);

describe('the sketch of the vision', () => {
  it('stands there as it was written', () => {
    const written = readFileSync(SKETCH, 'utf8').trimEnd();
    expect(createHash('sha256').update(written).digest('hex')).toBe(
      '109cf3630f1bb79acf36f408400cce901074bdf2acef40bb107ca2180584a341',
    );
  });

  it('is the schema that it would be in the DSL', async () => {
    const Paragraph = block('Paragraph', { fields: { text: text().required() } });
    const CallLog = block('CallLog', { fields: { at: datetime().required(), summary: text().required() } });
    const few = ['id', 'name'] as const;
    expect(await schemaFrom(SKETCH)).toEqual(
      defineSchema({
        roles: ['Admin', 'Manager', 'Sales', 'Support', 'Viewer'],
        models: {
          Company: { fields: { name: text().required(), industry: text() } },
          Contact: {
            fields: {
              name: text().required(),
              email: text(),
              company: belongsTo('Company'),
              notes: blocks([Paragraph, CallLog]).default([]).required(),
            },
            access: {
              read: { Admin: few, Manager: few, Sales: few, Support: few, Viewer: ['id', 'name', 'email', 'company'] },
              update: { Manager: true },
            },
          },
        },
      }),
    );
  });

  it('keeps what its rules say, and leaves to Admin what they leave out', async () => {
    const schema = await schemaFrom(SKETCH);
    const contact = modelOf(schema, 'Contact');
    expect(Object.keys(contact.access.update)).toEqual(['Admin', 'Manager']);
    expect([contact.access.create, contact.access.delete].map(Object.keys)).toEqual([['Admin'], ['Admin']]);
    expect(Object.values(modelOf(schema, 'Company').access).map(Object.keys)).toEqual([
      ['Admin'],
      ['Admin'],
      ['Admin'],
      ['Admin'],
    ]);
    expect(reading(schema, 'Contact', 'Admin')).toEqual({ fields: ['id', 'name'], where: null });
    expect(reading(schema, 'Contact', 'Viewer')).toEqual({ fields: ['id', 'name', 'email', 'company'], where: null });
  });

  it('checks what is written', async () => {
    const contact = modelOf(await schemaFrom(SKETCH), 'Contact');
    expect(validateInput(contact, { name: 'Ada' }, 'create')).toEqual({
      values: { name: 'Ada', notes: [] },
      faults: [],
    });
    const notes = [{ type: 'CallLog', at: '2026-11-21T08:00+01:00', summary: 'Hello' }, { type: 'Paragraph' }];
    expect(validateInput(contact, { name: 'Ada', notes }, 'create').faults).toEqual([
      { path: 'notes.1.text', message: 'notes.1.text is required.' },
    ]);
  });
});

describe.each(['crm', 'blog', 'sketch'])('services/%s', (service) => {
  it('loads, and is the same after a trip through JSON', async () => {
    const schema = await schemaFrom(join(SERVICES, service, 'schema.ts'));
    const again = readSchema(JSON.parse(JSON.stringify(schema)));
    expect(again).toEqual(schema);
    expect(describeSchema(again, 'Viewer')).toEqual(describeSchema(schema, 'Viewer'));
  });
});

describe('the plain form', () => {
  it('says with types and tags what the DSL says with words', async () => {
    const plain = await load(`
      type Language = 'en' | 'de';
      interface Timed {
        createdAt: Date
        /** When it happened. */
        at?: Date | null
      }
      /**
       * Someone who
       * writes.
       * @plural writers
       * @unique name code
       */
      export interface Author extends Timed {
        id: string; version: number;
        /** First and last. @personal @min 2 @max 80 @label Name */
        name: string;
        /** @email @unique @sensitive */
        mail?: string;
        /** @integer @min 0 @default 3 */
        count: number;
        size: number | null;
        /** @decimal 12 2 */
        fee?: string;
        /** @max 20 @pattern ^[a-z]+$ @index */
        code?: string;
        active: boolean;
        language: Language | 'fr';
        where?: { lat: number; lng: number };
        extra?: unknown;
        more?: Record<string, unknown>;
        /** @slug name language */
        path: string;
        posts?: Post[];
      }
      export interface Post {
        title: string; author: Author
        /** @onDelete cascade */
        parent?: Post; children?: Post[]; tags?: Tag[]; body: Block[] }
      export interface Tag { name: string; posts: Post[]; related: Author[] }
      /** Holds others. */
      export interface Section { type: 'Section'; inner?: Block[] }
      export type Block = { type: 'Text'; text: string; tone?: 'calm' | 'loud' } | Section;
      export const on = { Post: { created: ['tell'], updated: [{ action: 'look', changedAny: ['title'] }] } };
    `);
    const Text = block('Text', { fields: { text: text().required(), tone: enumeration('calm', 'loud') } });
    const Section = block('Section', {
      description: 'Holds others.',
      fields: { inner: blocks([Text, 'Section']).default([]) },
    });
    expect(plain).toEqual(
      defineSchema({
        models: {
          Author: {
            description: 'Someone who writes.',
            plural: 'writers',
            unique: [['name', 'code']],
            fields: {
              name: text().describe('First and last.').personal().min(2).max(80).ui({ label: 'Name' }).required(),
              mail: email().unique().sensitive(),
              count: integer().min(0).default(3).required(),
              size: number(),
              fee: decimal(12, 2),
              code: text()
                .max(20)
                .pattern(/^[a-z]+$/u)
                .index(),
              active: boolean().required(),
              language: enumeration('en', 'de', 'fr').required(),
              where: geoPoint(),
              extra: json(),
              more: json(),
              path: slug({ from: 'name', scope: ['language'] }).required(),
              posts: hasMany('Post', { via: 'author' }),
              at: datetime().describe('When it happened.'),
            },
          },
          Post: {
            fields: {
              title: text().required(),
              author: belongsTo('Author').required(),
              parent: belongsTo('Post', { onDelete: 'cascade' }),
              children: hasMany('Post', { via: 'parent' }),
              tags: manyToMany('Tag'),
              body: blocks([Text, Section]).default([]).required(),
            },
            on: { created: ['tell'], updated: [{ action: 'look', changedAny: ['title'] }] },
          },
          Tag: {
            fields: {
              name: text().required(),
              posts: manyToMany('Post', { inverseOf: 'tags' }),
              related: manyToMany('Author'),
            },
          },
        },
      }),
    );
  });

  it('has the roles of Role, and Admin besides', async () => {
    const schema = await load(`
      export type Role = 'Editor' | 'Reader';
      export interface Page { title: string; secret: string }
      export const access = { Page: {
        read: ({ role }: { role: Role }) => role === 'Editor' || role === 'Reader' && ['title'],
        update: false, delete: ({ role }: { role: string }) => ({ Editor: true } as Record<string, boolean>)[role] ?? false,
      } };
    `);
    expect(schema.roles).toEqual(['Admin', 'Editor', 'Reader']);
    const page = modelOf(schema, 'Page');
    // What they say of Admin is nothing, because Admin is no role of theirs.
    const all = { fields: null, where: null };
    expect(page.access).toEqual({
      read: { Admin: all, Editor: all, Reader: { fields: ['title'], where: null } },
      create: { Admin: all },
      update: { Admin: all },
      delete: { Admin: all, Editor: all },
    });
  });

  it('is told all faults at once, with their lines and columns', async () => {
    expect(
      await faultsOf(
        [
          "export type Role = 'Boss' | 'Viewer'",
          'interface Hidden { x: string }',
          'export interface Contact {',
          '  h: Hidden',
          '  tags: string[]',
          '  c: Compny',
          '  n: 1 | 2',
          '  /** @emial */ mail: string',
          '  /** @min 3 */ ok: boolean',
          '  f(): void',
          '  b: Block',
          '  /** @integer */ i: string',
          '  Big: string',
          '  /** @default 7 */ d: string',
          '  people: Person[]',
          '}',
          'export interface Person { one: Contact; two: Contact }',
          "export type Block = { type: 'Text'; of: Contact }",
          'export const access = {',
          '  Contact: {',
          '    read: ({ user }: any) => user.id,',
          "    update: ({ role }: any) => role === 'Boss' ? 7 : false,",
          '    delete: async () => true,',
          '    reed: true,',
          '  },',
          '  Nobody: {},',
          '}',
        ].join('\n'),
      ),
    ).toEqual(
      [
        '4:3 models.Contact.fields.h: Hidden is not exported, so it is no model. Write export before it',
        /^schema\.ts:5:3 models\.Contact\.fields\.tags: a list of string is no field\./,
        '6:3 models.Contact.fields.c: the type Compny is not known here. Declare and export it in this file',
        /^schema\.ts:7:3 models\.Contact\.fields\.n: 1 \| 2 is no type of field\./,
        /^schema\.ts:8:17 models\.Contact\.fields\.mail: @emial means nothing for this field\. There are @email,/,
        /^schema\.ts:9:17 models\.Contact\.fields\.ok: @min 3 means nothing for this field\./,
        '10:3 models.Contact.fields.f: is a function, which cannot be stored',
        '11:3 models.Contact.fields.b: a block stands in a list. Example: b: Block[]',
        '12:19 models.Contact.fields.i: @integer is said of a number. Example: i: number',
        '15:3 models.Contact.fields.people: Person points here by one and two. Say which is meant: /** @via one */',
        '21:5 access.Contact.read: for Boss, Viewer it failed: asks for user; only role is known when the schema is loaded',
        "22:5 access.Contact.update: for Boss it says 7, which is neither true, false nor a list of fields. Example: ['id', 'name']",
        "23:5 access.Contact.delete: for Boss, Viewer it says a promise, which is neither true, false nor a list of fields. Example: ['id', 'name']",
        '26:3 access.Nobody: there is no model Nobody. There are Contact, Person',
        /^schema\.ts:13:3 models\.Contact\.fields\.Big: a field's name starts with a small letter/,
        '20:3 models.Contact.access: reed means nothing here. There are read, create, update, delete',
      ].map((fault) => (typeof fault === 'string' ? `schema.ts:${fault}` : expect.stringMatching(fault))),
    );
  });

  it.each([
    ['export type Role = string\nexport interface A { x: string }', /^schema\.ts:1:1 roles: Role is no union of words/],
    [
      "export interface A { x: string }\nexport const access = { A: { read: () => { throw new Error('no') } } }",
      /2:30 access\.A\.read: for Admin, .*Viewer it failed: no$/,
    ],
    [
      "export interface A { x: string }\nexport const access = { A: { read: () => ['y'] } }",
      /2:25 models\.A\.access\.read\.Admin: there is no field y to read/,
    ],
    ['export interface A { x: string }\nexport const access = { A: 7 }', /2:25 access\.A: is no object of operations/],
    ['export interface A { x: string }\nexport const access = 7', /2:23 access: is no object of models/],
    [
      '/** @plurl xs */\nexport interface A { x: string }',
      /^schema\.ts:2:1 models\.A: @plurl means nothing for a model/,
    ],
    ['export interface A { x: { y: string } }', /1:22 models\.A\.fields\.x: \{ y: string; \} is no type of field/],
    ["export interface A { x: ('a' | 1)[] }", /a list of .* is no field/],
    [
      "export interface A { x: B[] }\nexport type B = { type: 'P'; a: string } | { kind: 'Q' }",
      /a list of B is no field/,
    ],
    ["export interface A { x: 'in progress' | 'done' }", /1:22 models\.A\.fields\.x: "in progress" cannot be a value/],
    ['export interface A { friends: A[]; foes: A[] }', /1:22 models\.A\.fields\.friends: A has several lists of A/],
    [
      "export interface A { x: B[] }\nexport type B = { type: 'P'; type2: Foo }",
      /2:\d+ blocks\.P\.fields\.type2: the type Foo is not known/,
    ],
  ])('%s', async (source, fault) => {
    expect((await faultsOf(source))[0]).toMatch(fault);
  });
});

describe('a file', () => {
  it('that declares nothing says what it could declare', async () => {
    expect(await faultsOf('export const x = 1')).toEqual([
      expect.stringMatching(/declares no model\. Example: export default defineSchema/),
    ]);
    expect(await faultsOf('export default 7')).toEqual([expect.stringMatching(/its default export is no schema/)]);
    expect(await faultsOf('export default { version: 99, models: [] }')).toEqual([
      expect.stringMatching(/version 99; this code reads version 1/),
    ]);
  });

  it('of the DSL has the places of its faults, also through names and calls', async () => {
    const faults = await faultsOf(
      [
        `import { belongsTo, block, blocks, defineSchema, model, text } from '${join(__dirname, 'index.ts')}';`,
        "const P = block('P', { fields: { Text: text() } });",
        'const Author = model({',
        "  fields: { name: text().max(0), boss: belongsTo('Nobody') },",
        "  unique: [['name'], ['nam' as 'name']],",
        '});',
        'export default defineSchema({ models: {',
        '  Author,',
        '  Post: { fields: { body: blocks([P]) }, access: {',
        '    read: { Viewr: true } } },',
        '} });',
      ].join('\n'),
    );
    expect(faults).toEqual([
      expect.stringMatching(/^schema\.ts:4:13 models\.Author\.fields\.name: max\(0\)/),
      expect.stringMatching(/^schema\.ts:4:34 models\.Author\.fields\.boss: points at Nobody/),
      expect.stringMatching(/^schema\.ts:2:34 blocks\.P\.fields\.Text: /),
      expect.stringMatching(/^schema\.ts:5:22 models\.Author\.unique\.1: there is no field nam/),
      expect.stringMatching(/^schema\.ts:10:5 models\.Post\.access\.read: Viewr means nothing here/),
    ]);
  });

  it('that cannot be read or run says where', async () => {
    expect(await faultsOf('export interface A { x: string\nexport const y = ;')).toEqual([
      expect.stringMatching(/schema\.ts:2:\d+ /),
    ]);
    expect(await faultsOf("export interface A { x: string }\nthrow new Error('not today')")).toEqual([
      expect.stringMatching(/not today$/),
    ]);
  });
});

describe('what cannot even be run', () => {
  const IMPORT = `import { defineSchema, email } from '${INDEX}';`;
  const models = (field: string) =>
    `${IMPORT}\nexport default defineSchema({ models: { A: { fields: { a: ${field} } } } });`;

  it.each([
    [
      'a misspelt word',
      models('email().requird()'),
      /schema\.ts:2:\d+ .*that field has no word requird\. Fields have required, default, unique, .*min, max/,
    ],
    [
      'a missing import',
      models('text()'),
      /schema\.ts:2:\d+ text is not defined\. Example: import \{ text \} from '@atomo-cc\/schema'$/,
    ],
    ['a name of your own', models('mine()'), /schema\.ts:2:\d+ mine is not defined$/],
    ['a fault of syntax', models('email('), /schema\.ts:2:\d+ Argument expression expected/],
  ])('%s', async (_name, source, expected) => {
    expect((await faultsOf(source))[0]).toMatch(expected);
  });
});

it.each([
  ["text().min('3' as never)", /min\("3"\) is no whole number\. Example: min\(3\)/],
  ["integer().max('9' as never)", /max\("9"\) is no number/],
  ['belongsTo(undefined as never)', /names no model\. There are A\. Example: belongsTo\('A'\)/],
  ['manyToMany(undefined as never)', /names no model\. There are A\. Example: manyToMany\('A'\)/],
])('%s is told as it was written', async (field, expected) => {
  const words = 'belongsTo, defineSchema, integer, manyToMany, text';
  const source = `import { ${words} } from '${INDEX}';\nexport default defineSchema({ models: { A: { fields: { a: ${field} } } } });`;
  expect(await faultsOf(source)).toEqual([expect.stringMatching(expected)]);
});

it('tells all that is wrong with a check', async () => {
  const source = `import { defineSchema, text } from '${INDEX}';
    export default defineSchema({ models: { A: { fields: { a: text() }, checks: [{ where: { gone: { equals: 'x' } } }] } } });`;
  expect(await faultsOf(source)).toEqual([
    expect.stringMatching(/checks\.0: has no message/),
    expect.stringMatching(/checks\.0\.where.*: there is no field gone/),
  ]);
});

it('tells a bound that is no number', async () => {
  const faults = await faultsOf('export interface A {\n  /** @min many */\n  n: number;\n}');
  expect(faults).toEqual([expect.stringMatching(/^schema\.ts:3:3 models\.A\.fields\.n: min\("many"\) is no number/)]);
});
