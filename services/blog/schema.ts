import {
  belongsTo,
  block,
  blocks,
  boolean,
  caller,
  datetime,
  defineSchema,
  email,
  enumeration,
  file,
  hasMany,
  integer,
  manyToMany,
  model,
  richText,
  slug,
  text,
  url,
  type InferCreateInput,
  type InferRecord,
} from '@atomo-cc/schema';

const Paragraph = block('Paragraph', {
  description: 'Running text.',
  fields: { text: richText().max(20_000).required() },
});

const Heading = block('Heading', {
  fields: { text: text().max(200).required(), level: integer().min(2).max(4).default(2) },
});

const Picture = block('Picture', {
  fields: {
    file: file({ accept: ['image/*'], maxBytes: 10_000_000 }).required(),
    alt: text().max(300).required('Say what the picture shows, for those who cannot see it.'),
    caption: text().max(300),
  },
});

const Quote = block('Quote', {
  fields: { text: text().max(2_000).required(), source: url() },
});

const Code = block('Code', {
  fields: {
    language: text()
      .max(30)
      .pattern(/^[a-z0-9+#-]+$/),
    source: text().max(50_000).required(),
  },
});

/** Holds other blocks, itself included. */
const Columns = block('Columns', {
  description: 'Blocks side by side.',
  fields: {
    left: blocks([Paragraph, Heading, Picture, Quote, Code, 'Columns']).max(50).required(),
    right: blocks([Paragraph, Heading, Picture, Quote, Code, 'Columns']).max(50).required(),
  },
});

export const Author = model({
  description: 'Someone who writes.',
  fields: {
    name: text().max(200).required().personal().searchable(),
    email: email().required().unique().personal(),
    user: text()
      .max(36)
      .index()
      .describe('The id of the user who may change what this author wrote.')
      .ui({ hidden: true }),
    homepage: url(),
    about: richText().max(5_000),
    portrait: file({ accept: ['image/*'], maxBytes: 2_000_000 }),
    posts: hasMany('Post'),
  },
  access: {
    read: { everyone: ['id', 'name', 'homepage', 'about', 'portrait', 'posts'], Manager: true },
    create: { Manager: true },
    update: {
      Manager: true,
      everyone: { fields: ['homepage', 'about', 'portrait'], where: { user: { equals: caller.id } } },
    },
  },
  ui: { title: 'name', list: ['name', 'email', 'homepage'] },
});

export const Post = model({
  description: 'An article in one language.',
  fields: {
    title: text().max(200).required().searchable().ui({ placeholder: 'What is it about?' }),
    language: enumeration('en', 'de', 'fr').required().default('en'),
    slug: slug({ from: 'title', scope: ['language'] }).required(),
    summary: text().max(500).searchable().ui({ widget: 'textarea' }),
    body: blocks([Paragraph, Heading, Picture, Quote, Code, Columns]).required().default([]).searchable(),
    stage: enumeration('Draft', 'Review', 'Published').required().default('Draft'),
    publishedAt: datetime(),
    featured: boolean().required().default(false),
    author: belongsTo('Author').required(),
    tags: manyToMany('Tag'),
    comments: hasMany('Comment'),
  },
  index: [['language', 'stage', 'publishedAt']],
  checks: [
    {
      where: { or: [{ stage: { not: 'Published' } }, { publishedAt: { isNull: false } }] },
      message: 'A published post has a moment of publication.',
    },
  ],
  access: {
    read: { Viewer: { where: { stage: { equals: 'Published' } } }, everyone: true },
    create: { Manager: true, Sales: true, Support: true },
    update: { Manager: true, Sales: { where: { stage: { not: 'Published' } } } },
    delete: { Manager: true },
  },
  on: {
    created: ['notifyEditors'],
    updated: [{ action: 'announcePost', changedAny: ['stage'], fieldEquals: { stage: 'Published' } }],
    deleted: ['dropFromSearchEngines'],
  },
  ui: { title: 'title', list: ['title', 'language', 'stage', 'publishedAt', 'author'] },
});

export const Tag = model({
  fields: {
    name: text().max(60).required(),
    language: enumeration('en', 'de', 'fr').required().default('en'),
    slug: slug({ from: 'name', scope: ['language'] }).required(),
    posts: manyToMany('Post', { inverseOf: 'tags' }),
  },
  access: {
    read: { everyone: true },
    create: { Manager: true, Sales: true },
    update: { Manager: true },
    delete: { Manager: true },
  },
  ui: { title: 'name' },
});

export const Comment = model({
  description: 'What a reader said about a post.',
  fields: {
    text: text().min(2).max(5_000).required(),
    name: text().max(100).required().personal(),
    email: email().personal(),
    spam: boolean().required().default(false),
    post: belongsTo('Post', { onDelete: 'cascade' }).required(),
    answerTo: belongsTo('Comment', { onDelete: 'setNull' }),
  },
  unique: [{ fields: ['post', 'email'], where: { spam: { equals: true } }, message: 'This was reported already.' }],
  access: {
    read: {
      everyone: { fields: ['id', 'text', 'name', 'post', 'createdAt'], where: { spam: { equals: false } } },
      Manager: true,
    },
    create: { everyone: ['text', 'name', 'email', 'post', 'answerTo'] },
    update: { Manager: ['spam'], Support: ['spam'] },
    delete: { Manager: true },
  },
});

/** What a post is as it is read, and what a new one is made from. */
export type PostRecord = InferRecord<typeof Post>;
export type NewPost = InferCreateInput<typeof Post>;

export default defineSchema({ models: { Author, Post, Tag, Comment } });
