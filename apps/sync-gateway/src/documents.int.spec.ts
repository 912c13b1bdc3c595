import { Ajv2020 } from 'ajv/dist/2020.js';
import { asyncApi, CLIENT_MESSAGES, type JsonSchema, openApi, ROUTES, SERVER_MESSAGES } from '@atomo-cc/sync-protocol';
import { aDatabase, type TestDatabase } from '@atomo-cc/testing';
import { gatewayMigrations } from './migrations.js';
import { Described, sampleOf, TestGateway } from './testing/index.js';

let database: TestDatabase;
let gateway: TestGateway;

beforeAll(async () => {
  database = await aDatabase(gatewayMigrations);
  gateway = await TestGateway.start(database.url);
});

afterAll(async () => {
  await gateway.stop();
  await database.drop();
});

/** Every object in a document, with where it is. */
function* everyObject(value: unknown, place = '#'): Generator<[string, Record<string, unknown>]> {
  if (typeof value !== 'object' || value === null) return;
  yield [place, value as Record<string, unknown>];
  for (const [key, inside] of Object.entries(value)) {
    yield* everyObject(inside, `${place}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`);
  }
}

describe('the documents', () => {
  it('are served to everybody, as they are made from the shapes', async () => {
    expect((await gateway.call('GET', '/api/openapi.json')).body).toEqual(JSON.parse(JSON.stringify(openApi())));
    expect((await gateway.call('GET', '/api/asyncapi.json')).body).toEqual(JSON.parse(JSON.stringify(asyncApi())));
  });

  it.each([
    ['OpenAPI', openApi()],
    ['AsyncAPI', asyncApi()],
  ])('%s: every reference leads somewhere, and every schema is one of JSON Schema 2020-12', (_name, document) => {
    const places = new Set([...everyObject(document)].map(([place]) => place));
    const references = [...everyObject(document)].flatMap(([, { $ref }]) => (typeof $ref === 'string' ? [$ref] : []));
    expect(references.length).toBeGreaterThan(50);
    expect(references.filter((reference) => !places.has(reference))).toEqual([]);
    const { schemas } = document['components'] as { schemas: Record<string, JsonSchema> };
    const unused = Object.keys(schemas).filter((name) => !references.includes(`#/components/schemas/${name}`));
    expect(unused).toEqual([]);
    const ajv = new Ajv2020({
      strict: true,
      allowUnionTypes: true,
      formats: { uuid: true, 'date-time': true, binary: true },
    });
    ajv.addKeyword('components');
    ajv.addSchema({ $id: 'document', components: { schemas } });
    for (const name of Object.keys(schemas)) {
      expect(ajv.compile({ $ref: `document#/components/schemas/${name}` })).toBeInstanceOf(Function);
    }
  });

  it('tell of every route that the gateway has, and of no other', async () => {
    // Those of every service were there before the gateway's.
    const ofEveryService = ['GET /health/live', 'GET /health/ready', 'GET /metrics'];
    for (const route of ofEveryService)
      expect((await fetch(gateway.url + route.slice('GET '.length))).status).toBe(200);
    const told = ROUTES.map(({ method, path }) => `${method} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}`);
    // Fastify answers HEAD for each GET by itself, and OPTIONS for browsers.
    const has = gateway.routes.filter((route) => !/^(?:HEAD|OPTIONS) /.test(route));
    expect(told.toSorted()).toEqual([...new Set([...has, ...ofEveryService])].toSorted());
    const operations = [...everyObject(openApi())].flatMap(([, { operationId }]) => operationId ?? []);
    expect(operations).toHaveLength(ROUTES.length);
    expect(new Set(operations).size).toBe(ROUTES.length);
  });

  it('tell of every event that the gateway takes, and of no other', () => {
    expect(CLIENT_MESSAGES.map(({ event }) => event).toSorted()).toEqual(gateway.events.toSorted());
    const { operations } = asyncApi() as { operations: Record<string, { action: string }> };
    const by = (action: string) => Object.values(operations).filter((operation) => operation.action === action).length;
    expect([by('receive'), by('send')]).toEqual([CLIENT_MESSAGES.length, SERVER_MESSAGES.length]);
  });

  it('find what is not as they tell: a field too many, one too few, one of another type, an answer nobody told of', () => {
    const described = new Described();
    const list = { files: [], total: 0, limit: 100, offset: 0 };
    const call = (answer: unknown, status = 200, path = '/api/v1/files') =>
      described.call({ method: 'GET', path, status, answer });
    call(list);
    expect(() => call({ ...list, more: 1 })).toThrow('not as the documents tell');
    expect(() => call({ ...list, total: undefined })).toThrow('not as the documents tell');
    expect(() => call({ ...list, total: '0' })).toThrow('not as the documents tell');
    expect(() => call({ error: { code: 'NEW', message: '' } }, 404)).toThrow('not as the documents tell');
    expect(() => call(list, 202)).toThrow('of which no document tells');
    expect(() => call({}, 200, '/api/v3')).toThrow('no document tells of it');
    expect(() => described.ack(2, 'pull', { from: 'x' }, { success: true })).toThrow('not as the documents tell');
    described.event(2, 'head', { epoch: 'none', seq: 1 });
    described.event(1, 'head', {});
    expect(described.faults).toHaveLength(2);
  });

  it('give samples that the gateway takes for well formed', async () => {
    const { key } = await (await gateway.aStore()).aKey();
    for (const { method, path, body } of ROUTES) {
      if (typeof body !== 'object' || path.includes('admin') || path.includes('{')) continue;
      const { status } = await gateway.call(method, path, key, sampleOf(body.schema, 'a.md'));
      expect([path, [200, 201, 409].includes(status)]).toEqual([path, true]);
    }
  });
});
