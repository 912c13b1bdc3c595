import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { asyncApi, CLIENT_MESSAGES, type JsonSchema, openApi, ROUTES, SERVER_MESSAGES } from '@atomo-cc/sync-protocol';

/** A REST call, as it was and as it was answered. */
export interface Call {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly body?: unknown;
  readonly status: number;
  readonly answer: unknown;
}

/**
 * Holds what goes over the wire to the documents: a request that was taken fits its schema, and an answer fits it and has
 * no field besides. All tests that talk to a gateway go through it.
 */
export class Described {
  private readonly loose = compilerOf((schema) => schema);
  private readonly strict = compilerOf(closed);
  /** What came by itself and is not as it is told. */
  readonly faults: string[] = [];

  /** @throws Error which says what is not as it is told */
  call({ method, path, body, status, answer }: Call): void {
    const { pathname, searchParams } = new URL(path, 'http://gateway');
    const route = ROUTES.find((each) => each.method === method && matches(each.path, pathname));
    if (!route) {
      if (status < 400) throw new Error(`${method} ${pathname} answered ${status}, and no document tells of it`);
      this.refusal(`${method} ${pathname} ${status}`, pathname.startsWith('/api/v2') ? 2 : 1, answer);
      return;
    }
    const what = `${method} ${route.path}`;
    if (status < 300 && !hasRefusal(answer)) {
      for (const [name, value] of searchParams) this.parameter(`${what} ?${name}`, route.query?.fields[name], value);
      const hasBody = body !== undefined && typeof body !== 'string' && typeof route.body === 'object';
      if (hasBody) this.check(this.loose, `${what} body`, route.body.schema, body);
    }
    if (status >= 400 && route.protocol !== null && route.answers[status] === undefined) {
      this.refusal(`${what} ${status}`, route.protocol, answer);
      return;
    }
    const told = route.answers[status];
    if (told === undefined) throw new Error(`${what} answered ${status}, of which no document tells`);
    if (typeof told !== 'object' || told === null) return;
    const isLines = 'lines' in told;
    for (const each of isLines ? (answer as unknown[]) : [answer])
      this.check(this.strict, `${what} ${status}`, (isLines ? told.lines : told).schema, each);
  }

  /** @throws Error which says what is not as it is told */
  ack(protocol: 1 | 2, event: string, payload: unknown, ack: unknown): void {
    const told = CLIENT_MESSAGES.find((each) => each.event === event);
    if (!told) throw new Error(`${event} was acked, and no document tells of it`);
    const isTaken = (ack as { success?: unknown } | null)?.success === true;
    if (isTaken && told.payload && !hasRefusal(ack))
      this.check(this.loose, `${event} payload`, told.payload.schema, payload ?? {});
    this.check(this.strict, `${event} ack`, isTaken ? told.ack.schema : REFUSED_ACK[protocol], ack);
  }

  /** Notes what is not as it is told: nobody waits for what comes by itself. */
  event(protocol: 1 | 2, event: string, payload: unknown): void {
    const told = SERVER_MESSAGES.find((each) => each.event === event && each.protocol === protocol);
    try {
      if (!told) throw new Error(`${event} came, and no document tells of it in protocol ${protocol}`);
      this.check(this.strict, event, told.payload.schema, payload);
    } catch (error) {
      this.faults.push((error as Error).message);
    }
  }

  private refusal(what: string, protocol: 1 | 2, answer: unknown): void {
    this.check(this.strict, what, REFUSED_CALL[protocol], answer);
  }

  private parameter(what: string, field: { readonly schema: JsonSchema } | undefined, value: string): void {
    // What no document tells of is no concern of the gateway's either; protocol 1 takes an empty one for left out.
    if (!field || value === '') return;
    const isNumber = field.schema['type'] === 'integer';
    this.check(this.loose, what, field.schema, isNumber ? Number(value) : value);
  }

  private check(compile: (schema: JsonSchema) => ValidateFunction, what: string, schema: JsonSchema, value: unknown) {
    const validate = compile(schema);
    if (validate(value)) return;
    const [fault] = validate.errors!;
    throw new Error(`${what} is not as the documents tell: ${fault!.instancePath} ${fault!.message}`);
  }
}

/** Of a push each operation is read alone: one that is malformed is a refusal among the results. */
function hasRefusal(answer: unknown): boolean {
  const { results } = Object(answer) as { results?: readonly { success: boolean }[] };
  return results?.some(({ success }) => !success) ?? false;
}

function compilerOf(change: (schema: JsonSchema) => JsonSchema): (schema: JsonSchema) => ValidateFunction {
  const ajv = new Ajv2020({ strict: false, formats: { 'date-time': ISO, uuid: UUID, binary: true } });
  const schemas = [openApi(), asyncApi()].map((document) => (document['components'] as { schemas: object }).schemas);
  const components = Object.fromEntries(
    Object.entries(Object.assign({}, ...schemas) as Record<string, JsonSchema>).map(([name, schema]) => [
      name,
      change(withoutBinary(schema)),
    ]),
  );
  ajv.addSchema({ $id: 'wire', components: { schemas: components } });
  const known = new WeakMap<JsonSchema, ValidateFunction>();
  return (schema) => {
    let found = known.get(schema);
    if (!found) {
      const here = change(withoutBinary(schema));
      found = ajv.compile(JSON.parse(JSON.stringify(here).replaceAll('"#/', '"wire#/')) as JsonSchema);
      known.set(schema, found);
    }
    return found;
  };
}

/** One object for each, because what was compiled is found again by its schema. */
const REFUSED_CALL: Readonly<Record<1 | 2, JsonSchema>> = {
  1: { $ref: '#/components/schemas/RefusalBody' },
  2: { $ref: '#/components/schemas/Refusal2Body' },
};
const REFUSED_ACK: Readonly<Record<1 | 2, JsonSchema>> = {
  1: { $ref: '#/components/schemas/RefusedAck' },
  2: { $ref: '#/components/schemas/Refused2Ack' },
};

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Attachments are bytes here, and no strings. */
function withoutBinary(schema: JsonSchema): JsonSchema {
  return everywhere(schema, (each) => (each['format'] === 'binary' ? {} : each));
}

/** Objects with known fields have no others; `details`, of which none is always there, may. */
function closed(schema: JsonSchema): JsonSchema {
  return everywhere(schema, (each) => ('required' in each ? { ...each, additionalProperties: false } : each));
}

function everywhere(schema: JsonSchema, change: (schema: JsonSchema) => JsonSchema): JsonSchema {
  const inside = Object.entries(schema).map(([key, value]): [string, unknown] => {
    if (Array.isArray(value)) return [key, value.map((each: unknown) => inner(each, change))];
    return [key, inner(value, change)];
  });
  return change(Object.fromEntries(inside));
}

function inner(value: unknown, change: (schema: JsonSchema) => JsonSchema): unknown {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? everywhere(value as JsonSchema, change)
    : value;
}

function matches(template: string, pathname: string): boolean {
  const [expected, found] = [template.split('/'), pathname.split('/')];
  if (expected.length !== found.length) return false;
  // `files/all` is before nothing that has a parameter at its place.
  return expected.every((segment, place) => segment.startsWith('{') || segment === found[place]);
}
