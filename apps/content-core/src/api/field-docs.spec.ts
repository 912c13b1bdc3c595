import { buildSchema, isInputObjectType, isObjectType, parse, print, printSchema, type GraphQLSchema } from 'graphql';
import { fillInDocs } from './field-docs.js';

const described = fillInDocs(
  buildSchema(`
    type Query { deals(where: DealWhere, first: Int, "Said." asOf: String): DealConnection note: Note }
    type DealConnection { nodes: [Deal] totalCount: Int }
    "A sale in the making." type Deal { id: ID title: String companyId: ID "By then." closesOn: String stage: DealStage }
    enum DealStage { Open Won }
    input DealWhere { and: [DealWhere] closesOn: String companyId: ID }
    type Note { body: String }
    type Mutation { createDeal(input: CreateDealInput): Deal }
    input CreateDealInput { title: String }
  `),
);

function docsOf(schema: GraphQLSchema): Record<string, string | null | undefined> {
  const docs: Record<string, string | null | undefined> = {};
  for (const type of Object.values(schema.getTypeMap()).filter(({ name }) => !name.startsWith('__'))) {
    docs[type.name] = type.description;
    if (!isObjectType(type) && !isInputObjectType(type)) continue;
    for (const field of Object.values(type.getFields())) {
      docs[`${type.name}.${field.name}`] = field.description;
      for (const argument of 'args' in field ? field.args : [])
        docs[`${type.name}.${field.name}.${argument.name}`] = argument.description;
    }
  }
  return docs;
}

test('nothing is left without a word', () => {
  for (const [name, text] of Object.entries(docsOf(described)))
    expect([name, text]).toEqual([name, expect.stringMatching(/\S/)]);
  // And what is documented is a schema still.
  expect(() => print(parse(printSchema(described)))).not.toThrow();
});

test('what was said stays, and the rest is told by what it is', () => {
  expect(docsOf(described)).toMatchObject({
    Deal: 'A sale in the making.',
    'Deal.closesOn': 'By then.',
    'Query.deals.asOf': 'Said.',
    'Query.deals.where': 'Only what fits this; all unless given.',
    'Deal.id': 'Tells it apart from all others, and never changes.',
    'Deal.companyId': 'The id of company.',
    'Deal.title': 'Title.',
    'DealWhere.and': 'All of these must hold.',
    'DealWhere.closesOn': 'A condition on closes on.',
    CreateDealInput: 'What a new one is made with.',
    DealConnection: 'A page of a list.',
    DealStage: 'Deal stage.',
  });
});
