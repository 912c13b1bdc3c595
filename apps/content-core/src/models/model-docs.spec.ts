import {
  accessOfRole,
  belongsTo,
  block,
  blocks,
  boolean,
  date,
  datetime,
  decimal,
  defineSchema,
  email,
  enumeration,
  file,
  geoPoint,
  integer,
  json,
  manyToMany,
  number,
  richText,
  slug,
  sum,
  template,
  text,
  url,
} from '@atomo-cc/schema';
import { GraphQLSchema, isInputObjectType, isObjectType, isUnionType, type GraphQLNamedType } from 'graphql';
import { ModelDocs } from './model-docs.js';
import { ModelTypes } from './model-types.js';

const Paragraph = block('Paragraph', { fields: { text: text().max(500).required() } });
const schema = defineSchema({
  models: {
    Author: { fields: { name: text().required() }, access: { read: { everyone: true } } },
    Tag: { fields: { name: text().required() }, access: { read: { everyone: true } } },
    BlogPost: {
      description: 'What someone has written.',
      fields: {
        title: text().min(3).max(200).required().unique(),
        subtitle: text().describe('Said by the author.'),
        untold: text().describe('No full stop'),
        long: text().describe('One.\n\nTwo.'),
        code: text().pattern(/^[a-z]+$/i),
        about: richText(),
        mail: email().personal(),
        health: text().sensitive(),
        home: url(),
        slug: slug({ from: 'title', scope: ['language'] }).required(),
        language: enumeration('en', 'de').required().default('en'),
        stars: integer().min(1).max(5),
        rank: integer().min(0),
        price: decimal(10, 2).max(99).required(),
        tax: decimal(10, 2).required(),
        weight: number(),
        live: boolean().default(false),
        day: date(),
        at: datetime().defaultNow(),
        extra: json(),
        place: geoPoint(),
        picture: file({ accept: ['image/*'], maxBytes: 2_000 }),
        body: blocks([Paragraph]).max(9),
        author: belongsTo('Author', { onDelete: 'cascade' }),
        tags: manyToMany('Tag'),
      },
      computed: { total: sum('price', 'tax'), whole: template('{title} {mail}') },
      access: {
        read: { everyone: ['title', 'slug', 'total', 'whole', 'author'], Manager: true },
        create: { Manager: true },
        update: { Manager: { where: { live: { equals: false } } } },
      },
    },
  },
});
const post = schema.models.find(({ name }) => name === 'BlogPost')!;

function told(role: string, name: string): string {
  const docs = new ModelDocs(accessOfRole(schema, role));
  const computed = post.computed.find((each) => each.name === name);
  return computed
    ? docs.computed(post, computed)
    : docs.field(
        post,
        post.fields.find((each) => each.name === name)!,
      );
}

test.each([
  ['title', 'Text, 3 to 200 characters. Required. Unique.'],
  ['subtitle', 'Said by the author. Text, 10,000 characters at most.'],
  ['untold', 'No full stop. Text, 10,000 characters at most.'],
  ['long', 'One.\n\nTwo.\n\nText, 10,000 characters at most.'],
  ['code', 'Text, 10,000 characters at most. It matches `/^[a-z]+$/i`.'],
  ['about', 'Markdown, 100,000 characters at most.'],
  ['mail', 'An e-mail address. Personal: sealed in the log.'],
  ['health', 'Text, 10,000 characters at most. Sensitive: sealed in the log.'],
  ['home', 'A web address, with https:// or http://.'],
  [
    'slug',
    'A word for addresses, such as `my-first-post`. Made from `title` where it is not given. Required. Unique together with `language`.',
  ],
  ['language', 'One of `en` and `de`. `"en"` where it is not given. Required. Unique together with `slug`.'],
  ['stars', 'A whole number, 1 to 5.'],
  ['rank', 'A whole number, 0 or more.'],
  ['price', 'An exact number, 99 or less, of 10 digits, 2 of them behind the point, as text: `"7.50"`. Required.'],
  ['weight', 'A number.'],
  ['live', 'True or false. `false` where it is not given.'],
  ['day', 'A day, such as `2026-11-21`.'],
  ['at', 'A moment, such as `2026-11-21T07:25:18.123Z`. The time of creation where it is not given.'],
  ['extra', 'Any JSON, of 64 KiB at most.'],
  ['place', 'A place in degrees: `{lat, lng}`.'],
  ['picture', 'The id of an upload, `image/*`, 2,000 bytes at most.'],
  ['body', 'A list of blocks, of the types `Paragraph`, 9 at most: `{type, …}`.'],
  ['author', 'The id of the Author. Deleted along with the Author.'],
  [
    'total',
    'An exact number with 2 digits behind the point, as text, that is never written: it follows from `price` and `tax`.',
  ],
])('of %s a Manager is told its rules, behind what its author says', (name, expected) => {
  expect(told('Manager', name)).toBe(expected);
});

test('who else may read a field is told to Admin alone', () => {
  expect(told('Admin', 'price')).toMatch(/Read by Admin and Manager\.$/);
  expect(told('Admin', 'title')).not.toContain('Read by');
  expect(told('Manager', 'price')).not.toContain('Read by');
});

test('no more is told than the role may know', () => {
  // What a slug is made of and unique with, and what a sum is made of, names what is hidden from a Viewer.
  expect(told('Viewer', 'slug')).toBe('A word for addresses, such as `my-first-post`. Required.');
  expect(told('Viewer', 'total')).toContain('it follows from other fields');
  expect(told('Viewer', 'whole')).toBe(
    'Text that is never written: it follows from other fields. Personal: sealed in the log.',
  );
});

test('a model tells what one is and what the caller may do', () => {
  const of = (role: string, name: string) =>
    new ModelDocs(accessOfRole(schema, role)).model(schema.models.find((each) => each.name === name)!);
  expect(of('Manager', 'BlogPost')).toBe(
    'What someone has written.\n\nYou may read, create and update some, but not delete.',
  );
  expect(of('Viewer', 'Author')).toBe('Author.\n\nYou may read, but not create or update or delete.');
  expect(of('Admin', 'Author')).toBe('Author.\n\nYou may read, create, update and delete.');
});

test('the types of the API say it wherever a field stands', () => {
  const access = accessOfRole(schema, 'Manager');
  const types = new ModelTypes(access);
  const model = access.reads(post)!;
  const made = [
    types.record(model),
    types.where(model),
    types.order(model),
    types.input(post, 'create')!,
    types.input(post, 'update')!,
    types.aggregate(model),
  ];
  const all = new GraphQLSchema({ types: made }).getTypeMap();
  const docsOf = (type: GraphQLNamedType | undefined) =>
    isObjectType(type) || isInputObjectType(type)
      ? Object.fromEntries(Object.values(type.getFields()).map(({ name, description }) => [name, description]))
      : {};
  expect(docsOf(all['CreateBlogPostInput'])['stars']).toBe('A whole number, 1 to 5.');
  expect(docsOf(all['UpdateBlogPostInput'])['stars']).toBe('A whole number, 1 to 5.');
  expect(docsOf(all['BlogPostWhere'])).toMatchObject({
    stars: 'A condition on `stars`. A whole number, 1 to 5.',
    subtitle: 'A condition on `subtitle`. Said by the author.',
    author: 'A condition on the Author in `author`.',
    tags: 'A condition on the tags in `tags`.',
    total: 'A condition on `total`. An exact number with 2 digits behind the point, as text.',
    whole: 'A condition on `whole`. Text.',
  });
  expect(docsOf(all['BlogPostOrder'])).toMatchObject({ stars: 'By `stars`.', total: 'By `total`.' });
  expect(docsOf(all['BlogPostAggregateGroup'])['whole']).toBe('What they share of `whole`. Text.');
  expect(docsOf(all['BlogPostAggregateSum'])).toMatchObject({
    stars: 'The sum of `stars`. A whole number, 1 to 5.',
    total: 'The sum of `total`. An exact number with 2 digits behind the point, as text.',
  });
  expect(docsOf(all['BlogPost'])).toMatchObject({
    author: 'The Author that `authorId` names.',
    authorId: 'The id of the Author. Deleted along with the Author.',
  });
  expect(all['BlogPostLanguage']?.description).toBe('What `BlogPost.language` may be.');
  expect(docsOf(all['ParagraphBlock'])['text']).toBe('Text, 500 characters at most. Required.');
  expect(isUnionType(all['BlogPostBodyBlock'])).toBe(true);
});
