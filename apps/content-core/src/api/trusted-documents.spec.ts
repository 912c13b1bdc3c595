import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TrustedDocuments, type Trust } from './trusted-documents.js';

const HELLO = 'query Hello { hello }';
const HASH = createHash('sha256').update(HELLO).digest('hex');

const folder = mkdtempSync(join(tmpdir(), 'trusted-documents-'));
const file = join(folder, 'documents.json');
afterAll(() => rmSync(folder, { recursive: true }));

function read(content: unknown, trust: Trust = 'only'): TrustedDocuments {
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return TrustedDocuments.read(file, trust);
}
function refusalOf(work: () => unknown): { code: string; message: string } {
  try {
    work();
  } catch (error) {
    return error as { code: string; message: string };
  }
  throw new Error('nothing was refused');
}

test.each([
  ['of graphql-codegen', { [HASH]: HELLO }],
  ['of GraphQL over HTTP', { [`sha256:${HASH}`]: HELLO }],
  ['of Apollo', { format: 'apollo-persisted-query-manifest', version: 1, operations: [{ id: HASH, body: HELLO }] }],
])('a manifest %s, asked in every way', (_name, content) => {
  const trusted = read(content);
  expect(trusted.named({ documentId: HASH })).toBe(HELLO);
  expect(trusted.named({ documentId: `sha256:${HASH}`, query: '' })).toBe(HELLO);
  expect(trusted.named({ extensions: { persistedQuery: { version: 1, sha256Hash: HASH } } })).toBe(HELLO);
  // Who writes the document is answered by what is written, as long as both are the same.
  expect(trusted.named({ documentId: HASH, query: HELLO })).toBeUndefined();
  expect(refusalOf(() => trusted.named({ documentId: HASH, query: '{ other }' })).code).toBe('VALIDATION_ERROR');
});

test("ids of one's own, as of Relay", () => {
  expect(read({ '0c7e': HELLO, 'x-app:hello.v2': '{ hello }' }).named({ documentId: 'x-app:hello.v2' })).toBe(
    '{ hello }',
  );
});

test('what is not there is told in the words that clients know', () => {
  const apollos = { extensions: { persistedQuery: { version: 1, sha256Hash: 'f'.repeat(64) } } };
  const trusted = read({ a: HELLO });
  for (const id of ['b', '', '__proto__', 'constructor', 'sha256:', 'x'.repeat(1e6)])
    expect(refusalOf(() => trusted.named({ documentId: id }))).toMatchObject({ code: 'NOT_FOUND' });
  expect(refusalOf(() => trusted.named(apollos))).toMatchObject({ message: 'PersistedQueryNotFound' });
  for (const id of [5, true, {}, ['a']])
    expect(refusalOf(() => trusted.named({ documentId: id }))).toMatchObject({ code: 'VALIDATION_ERROR' });
  expect(refusalOf(() => TrustedDocuments.NONE.named({ documentId: 'a' })).message).toContain('no trusted documents');
  expect(refusalOf(() => TrustedDocuments.NONE.named(apollos)).message).toBe('PersistedQueryNotSupported');
  for (const asked of [{}, { query: HELLO }, { ...apollos, query: HELLO }, { extensions: { persistedQuery: 'x' } }])
    expect(TrustedDocuments.NONE.named(asked)).toBeUndefined();
});

test('only trusted documents are carried out, but for Admin', () => {
  const only = read({ a: HELLO });
  for (const role of ['Manager', 'Viewer', ''])
    expect(refusalOf(() => only.require('{ hello }', role))).toMatchObject({ code: 'FORBIDDEN' });
  only.require(HELLO, 'Viewer');
  only.require('{ hello }', 'Admin');
  read({ a: HELLO }, 'allow').require('{ hello }', 'Viewer');
});

test('a faulty manifest is refused with its file and all faults at once', () => {
  const many = {
    'two words': HELLO,
    number: 5,
    syntax: 'query { hello ',
    fragment: 'fragment F on Query { hello }',
    ['0'.repeat(64)]: HELLO,
    [HASH]: HELLO,
    [`sha256:${HASH}`]: HELLO,
    deep: `{ ${'a { '.repeat(25)} b ${'} '.repeat(25)} }`,
    good: '{ hello }',
  };
  const { code, message } = refusalOf(() => read(many));
  expect(code).toBe('TRUSTED_DOCUMENTS_INVALID');
  expect(message.split('\n')).toEqual([
    `${file}: the manifest has 7 fault(s):`,
    expect.stringMatching(/^ {2}"two words": its id is not 1 to 200 characters .* Example: /),
    expect.stringMatching(/^ {2}"number": its document is 5 and no text\. Example: /),
    expect.stringMatching(/^ {2}"syntax": its document is no GraphQL: .*line 1, column 15/),
    expect.stringMatching(/^ {2}"fragment": its document has no operation\. Example: /),
    expect.stringMatching(/^ {2}"0{64}": its id is not the SHA-256 of its document, which is [0-9a-f]{64}/),
    `  "sha256:${HASH}": is there twice`,
    expect.stringMatching(/^ {2}"deep": .*MAX_DEPTH/),
  ]);
});

test.each([
  ['{', 'cannot be read'],
  ['[]', 'no object of documents'],
  ['{}', 'holds no document'],
  [
    '{"format":"apollo-persisted-query-manifest","operations":[null,{"id":"a"}]}',
    'operations.1: its document is missing',
  ],
  [JSON.stringify(Object.fromEntries(Array.from({ length: 10_001 }, (_, at) => [at, '{ a }']))), '10000 are the most'],
])('%.60s is no manifest', (content, message) => {
  expect(refusalOf(() => read(content)).message).toContain(message);
});

test('a file that is not there, or none, is named', () => {
  const missing = join(folder, 'missing.json');
  expect(refusalOf(() => TrustedDocuments.read(missing, 'allow'))).toMatchObject({
    code: 'TRUSTED_DOCUMENTS_INVALID',
    message: expect.stringContaining(`${missing}: there is no such file`),
  });
  expect(refusalOf(() => TrustedDocuments.read(folder, 'allow')).message).toContain('it is a folder');
});
