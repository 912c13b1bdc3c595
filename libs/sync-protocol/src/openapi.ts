import { HASH } from './hashes.js';
import { Refusal2Body, RefusalBody } from './refusals.js';
import { KEY_HEADER } from './rest.js';
import { BYTES, type Lines, type Route, ROUTES, TEXT } from './routes.js';
import { type JsonSchema, partsOf, type Shape } from './shape.js';

const JSON_TYPE = 'application/json';
/** Newline-delimited JSON; the schema is that of one line. */
const LINES_TYPE = 'application/x-ndjson';
const BYTES_TYPE = 'application/octet-stream';

/** The REST routes of both protocols as OpenAPI 3.1. */
export function openApi(): JsonSchema {
  const shapes = ROUTES.flatMap(({ query, body, answers }) => [
    ...Object.values(query?.fields ?? {}),
    ...[body, ...Object.values(answers)].flatMap((each) => {
      if (typeof each !== 'object' || each === null) return [];
      return 'lines' in each ? each.lines : each;
    }),
  ]);
  const paths: Record<string, Record<string, JsonSchema>> = {};
  for (const route of ROUTES) (paths[route.path] ??= {})[route.method.toLowerCase()] = operationOf(route);
  return {
    openapi: '3.1.0',
    info: {
      title: 'Atomo sync gateway',
      version: '2',
      license: { name: 'MIT', identifier: 'MIT' },
      description:
        'Files of a store, the same on many devices. Protocol 1 (/api/v1) and protocol 2 (/api/v2) stand on the same files; ' +
        'the socket events of both are told in asyncapi.json beside this.',
    },
    servers: [{ url: '/' }],
    tags: [{ name: 'protocol 1' }, { name: 'protocol 2' }, { name: 'service' }],
    paths,
    components: {
      securitySchemes: {
        storeKey: { type: 'apiKey', in: 'header', name: KEY_HEADER, description: 'A key of a store, sk_store_….' },
        masterKey: { type: 'apiKey', in: 'header', name: KEY_HEADER, description: 'The master key, sk_admin_….' },
      },
      schemas: Object.fromEntries(partsOf([...shapes, RefusalBody, Refusal2Body, HASH])),
    },
  };
}

function operationOf(route: Route): JsonSchema {
  const { method, path, protocol, needs, summary, body, answers } = route;
  const refusal = protocol === 2 ? Refusal2Body : RefusalBody;
  const done = Object.entries(answers).map(([status, answer]): [string, JsonSchema] => [
    status,
    { description: WHAT[status] ?? 'It is done.', ...contentOf(answer) },
  ]);
  const refused: [string, JsonSchema][] =
    protocol === null
      ? []
      : [
          ['4XX', { description: 'Refused, and why.', ...contentOf(refusal) }],
          ['5XX', { description: 'A fault of the gateway, or no room.', ...contentOf(refusal) }],
        ];
  const parameters = parametersOf(route);
  const permissions = typeof needs === 'string' ? [] : needs;
  return {
    operationId: idOf(method, path),
    tags: [protocol === null ? 'service' : `protocol ${protocol}`],
    summary,
    ...(needs === 'no key'
      ? { security: [] }
      : { security: [{ [needs === 'master' ? 'masterKey' : 'storeKey']: [] }] }),
    ...(permissions.length > 0 && { description: `The key needs the permission ${permissions.join(' and ')}.` }),
    ...(parameters.length > 0 && { parameters }),
    ...(body && { requestBody: { required: route.isBodyOptional !== true, ...contentOf(body) } }),
    responses: Object.fromEntries([...done, ...refused]),
  };
}

const WHAT: Readonly<Record<string, string>> = {
  200: 'What was asked for.',
  201: 'It was made.',
  204: 'It is done.',
  206: 'The range.',
  304: 'The client has it already.',
  416: 'There are no such bytes; content-range tells the size.',
  503: 'The gateway does not work.',
};

function contentOf(answer: Shape<unknown> | Lines | typeof BYTES | typeof TEXT | null): JsonSchema {
  if (answer === null) return {};
  if (answer === BYTES) return { content: { [BYTES_TYPE]: {} } };
  if (answer === TEXT) return { content: { 'text/plain': { schema: { type: 'string' } } } };
  if ('lines' in answer) return { content: { [LINES_TYPE]: { schema: answer.lines.schema } } };
  return { content: { [JSON_TYPE]: { schema: answer.schema } } };
}

function parametersOf({ path, query, headers = [] }: Route): JsonSchema[] {
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name: name!,
    in: 'path',
    required: true,
    schema: name === 'hash' ? HASH.schema : { type: 'string', format: 'uuid' },
  }));
  const inQuery = Object.entries(query?.fields ?? {}).map(([name, { schema, ...field }]) => ({
    name,
    in: 'query',
    required: !('isOptional' in field),
    schema,
  }));
  const inHeaders = headers.map((name) => ({ name, in: 'header', required: false, schema: { type: 'string' } }));
  return [...inPath, ...inQuery, ...inHeaders];
}

/** `GET /api/v2/files/{fileId}/versions` is getV2FilesFileIdVersions. */
function idOf(method: string, path: string): string {
  const words = path
    .replace(/^\/api\//, '')
    .split(/[^A-Za-z0-9]+/)
    .filter((word) => word !== '');
  return method.toLowerCase() + words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('');
}
