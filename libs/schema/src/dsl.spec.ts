import { isCodedError } from '@atomo-cc/kernel';
import { belongsTo, boolean, date, email, enumeration, number, text, type ModelDeclaration } from './dsl.js';
import { defineSchema } from './define-schema.js';
import { columnOf, inputName, modelNamed, snakeCase } from './model.js';

/** The faults of a declaration, a line each; none when it is right. */
function faultsOf(models: unknown): string[] {
  try {
    defineSchema({ models: models as Record<string, ModelDeclaration> });
    return [];
  } catch (error) {
    if (!isCodedError(error)) throw error;
    expect(error.code).toBe('SCHEMA_INVALID');
    const [head, ...faults] = error.message.split('\n');
    expect(head).toBe(`the schema has ${faults.length} fault(s):`);
    return faults.map((fault) => fault.trim());
  }
}

const withField = (name: string, field: unknown) => faultsOf({ Contact: { fields: { [name]: field } } });

describe('a right declaration', () => {
  it('becomes plain data', () => {
    const schema = defineSchema({
      models: {
        Person: { plural: 'people', fields: { name: text().max(80).required().describe('How to call them.') } },
        Company: {
          fields: {
            boss: belongsTo('Person'),
            stage: enumeration('Open', 'Won').required(),
            size: number().min(1).max(9),
          },
        },
      },
    });
    expect(JSON.parse(JSON.stringify(schema))).toEqual(schema);
    expect(schema.models.map(({ name, singular, plural, table }) => [name, singular, plural, table])).toEqual([
      ['Person', 'person', 'people', 'model_person'],
      ['Company', 'company', 'companies', 'model_company'],
    ]);
    expect(schema.models[0]!.fields[0]).toMatchObject({
      name: 'name',
      type: 'text',
      required: true,
      maxLength: 80,
      description: 'How to call them.',
    });
    expect(schema.models[1]!.fields).toMatchObject([
      { name: 'boss', type: 'relation', target: 'Person', required: false },
      { name: 'stage', values: ['Open', 'Won'], required: true },
      { name: 'size', min: 1, max: 9 },
    ]);
    expect(modelNamed(schema, 'Person').name).toBe('Person');
    expect(() => modelNamed(schema, 'Nobody')).toThrow(RangeError);
  });

  it('may point at itself, and at models declared later', () => {
    expect(
      faultsOf({ A: { fields: { b: belongsTo('B'), a: belongsTo('A') } }, B: { fields: { x: boolean() } } }),
    ).toEqual([]);
  });

  it('leaves the field that another is made from as it was', () => {
    const plain = text();
    plain.required();
    plain.max(5);
    expect(plain.attributes).toMatchObject({ required: false, maxLength: 10_000 });
  });

  it.each([
    ['Box', 'boxes'],
    ['Bus', 'buses'],
    ['Day', 'days'],
    ['City', 'cities'],
    ['Dish', 'dishes'],
    ['DealNote', 'dealNotes'],
  ])('lists %s as %s', (name, plural) => {
    expect(defineSchema({ models: { [name]: { fields: { x: text() } } } }).models[0]!.plural).toBe(plural);
  });
});

describe('faults', () => {
  it('are told all at once, each with its path and what would be right', () => {
    const faults = faultsOf({
      contact: { fields: { Name: text(), id: text(), company: belongsTo('Compny') } },
      Deal: { fields: {} },
      Note: { fields: { kind: enumeration('in progress'), body: 'text', size: number().min(5).max(1) } },
    });
    const expected = [
      /^models\.contact: .*capital.*Example: Contact$/,
      /^models\.contact\.fields\.Name: .*small letter.*Example: firstName$/,
      /^models\.contact\.fields\.id: every record has id already/,
      /^models\.contact\.fields\.company: points at Compny, which is no model\. There are contact, Deal, Note$/,
      /^models\.Deal\.fields: there is none\. Example: /,
      /^models\.Note\.fields\.kind: "in progress" cannot be .*Example: InProgress$/,
      /^models\.Note\.fields\.body: is no field\. Example: body: text\(\)\.required\(\)$/,
      /^models\.Note\.fields\.size: min\(5\) is above max\(1\)/,
    ];
    for (const fault of expected) expect(faults).toContainEqual(expect.stringMatching(fault));
    expect(faults).toHaveLength(expected.length);
  });

  it.each([undefined, null, {}])('%j instead of models is one fault', (models) => {
    expect(faultsOf(models)).toEqual([expect.stringMatching(/^models: there is none\. Example: /)]);
  });

  it.each([null, 'fields', 7])('%j instead of a model is one fault', (model) => {
    expect(faultsOf({ Contact: model })).toEqual([expect.stringMatching(/^models\.Contact: is no model\. Example: /)]);
  });

  it.each(['id', 'version', 'createdAt', 'updatedAt', 'tenantId'])("%s is every record's own", (name) => {
    expect(withField(name, text())).toEqual([
      expect.stringMatching(`^models.Contact.fields.${name}: every record has`),
    ]);
  });

  it('a relation may not be written under a name that every record has, nor two fields under one name', () => {
    expect(faultsOf({ Contact: { fields: { tenant: belongsTo('Contact') } } })).toEqual([
      expect.stringMatching(/has tenantId already/),
    ]);
    expect(faultsOf({ Contact: { fields: { boss: belongsTo('Contact'), bossId: text() } } })).toEqual([
      expect.stringMatching(/^models\.Contact\.fields\.bossId: .* same name as boss/),
    ]);
  });

  it.each(['and', 'or', 'not'])('%s is a word of the filters', (name) => {
    expect(withField(name, text())).toHaveLength(1);
  });

  it.each([
    'Me',
    'Event',
    'GraphNode',
    'HistoricalSyncJob',
    'Query',
    'Mutation',
    'Subscription',
    'String',
    'PageInfo',
    'Direction',
  ])('no model may be called %s', (name) => {
    const faults = faultsOf({ [name]: { fields: { x: text() } } });
    expect(faults.length).toBeGreaterThan(0);
    for (const fault of faults) expect(fault).toMatch(`models.${name}: `);
  });

  it('two models may not share a name in the API', () => {
    expect(faultsOf({ Person: { plural: 'folk', fields: { x: text() } }, Folk: { fields: { x: text() } } })).toEqual([
      expect.stringMatching(/^models\.Folk: its name in the API, folk, belongs to model Person/),
    ]);
  });

  it('a model does not take the name under which the API has the history of another', () => {
    const x = { fields: { x: text() } };
    expect(faultsOf({ Person: x, PersonHistory: x })).toEqual([
      expect.stringMatching(/^models\.PersonHistory: its name in the API, personHistory, belongs to model Person/),
    ]);
  });

  it('a model does not take the name under which the API has the history of another', () => {
    const x = { fields: { x: text() } };
    expect(faultsOf({ Person: x, PersonHistory: x })).toEqual([
      expect.stringMatching(/^models\.PersonHistory: its name in the API, personHistory, belongs to model Person/),
    ]);
  });

  it.each(['', 'my people', 'People', '__people', 'leute; drop table x'])('%j is no plural', (plural) => {
    expect(faultsOf({ Person: { plural, fields: { x: text() } } })).toEqual([
      expect.stringMatching(/^models\.Person\.plural: /),
    ]);
  });

  it.each(['first-name', '1st', '_x', 'naïve', '', `a${'b'.repeat(46)}`, `a${'B'.repeat(30)}`])(
    '%j is no name of a field',
    (name) => {
      expect(withField(name, text())).toHaveLength(1);
    },
  );

  it('a name whose column would be cut by Postgres is refused, one that just fits is not', () => {
    expect(withField(`a${'b'.repeat(45)}`, text())).toEqual([]);
    expect(faultsOf({ ['A'.repeat(30)]: { fields: { x: text() } } })).toHaveLength(1);
  });

  it.each(['', 'a b', '1st', '__secret', 'true', 'false', 'null', 'x-y'])('%j is no value of an enum', (value) => {
    expect(withField('stage', enumeration(value))).toEqual([
      expect.stringMatching(/^models\.Contact\.fields\.stage: .*Example: InProgress$/),
    ]);
  });

  it('an enum needs values, and each once', () => {
    expect(withField('stage', (enumeration as unknown as () => unknown)())).toEqual([
      expect.stringMatching(/has no values\. Example/),
    ]);
    expect(withField('stage', enumeration('A', 'A'))).toEqual([expect.stringMatching(/stands there twice/)]);
    expect(withField('stage', (enumeration as unknown as (n: number) => unknown)(7))).toHaveLength(1);
  });

  it.each([
    ['text max', text().max(0)],
    ['text max', text().max(1.5)],
    ['number min', number().min(Number.NaN)],
    ['number max', number().max('9' as unknown as number)],
  ])('a bound that bounds nothing: %s', (_name, field) => {
    expect(withField('size', field)).toEqual([expect.stringMatching(/^models\.Contact\.fields\.size: .*Example/)]);
  });
});

describe('personal fields', () => {
  it('are marked whatever their type and wherever the mark stands, and no others are', () => {
    const { fields } = defineSchema({
      models: {
        Contact: {
          fields: {
            name: text().required().personal(),
            mail: email().personal().required(),
            born: date().personal(),
            shoe: number().personal().min(30),
            stage: enumeration('A').personal(),
            note: text(),
            boss: belongsTo('Contact'),
          },
        },
      },
    }).models[0]!;
    expect(fields.filter(({ pii }) => pii === 'personal').map(({ name }) => name)).toEqual([
      'name',
      'mail',
      'born',
      'shoe',
      'stage',
    ]);
    expect(fields.filter(({ pii }) => pii === null).map(({ name }) => name)).toEqual(['note', 'boss']);
  });

  it('a relation is none', () => {
    expect(withField('boss', belongsTo('Contact').personal())).toEqual([
      expect.stringMatching(
        /^models\.Contact\.fields\.boss: a relation cannot be personal.*Mark the fields of Contact/,
      ),
    ]);
  });
});

describe('names', () => {
  const [boss, firstName] = defineSchema({
    models: { Contact: { fields: { boss: belongsTo('Contact'), firstName: text(), mail: email(), born: date() } } },
  }).models[0]!.fields;

  it('relations are written by id, and columns are in snake case', () => {
    expect([inputName(boss!), columnOf(boss!)]).toEqual(['bossId', 'boss_id']);
    expect([inputName(firstName!), columnOf(firstName!)]).toEqual(['firstName', 'first_name']);
    expect(['Contact', 'DealNote', 'aB', 'x'].map(snakeCase)).toEqual(['contact', 'deal_note', 'a_b', 'x']);
  });
});
