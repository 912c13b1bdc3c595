import Fastify, { type FastifyInstance } from 'fastify';
import { apiError, DEFAULT_TENANT_ID, tenantId, uuidv7, type TenantId, type UserId } from '@atomo-cc/kernel';
import {
  belongsTo,
  boolean,
  date,
  DEFAULT_ROLES,
  defineSchema,
  email,
  enumeration,
  number,
  text,
  template,
} from '@atomo-cc/schema';
import { type Principal, type Scope, SCOPES } from '@atomo-cc/access';
import { hearOut } from '@atomo-cc/platform/lifecycle';
import { createLogger, type Logger } from '@atomo-cc/platform/logging';
import { traceRequests } from '@atomo-cc/platform/telemetry';
import { RoleSchemas, serveApi, type ApiPart, type ApiServerOptions, type RolePart } from '../api/index.js';

/** A schema with a field of every type, a model that refers to itself, and an order word and a quote in its texts' way. */
export const SHOP = defineSchema({
  models: {
    Brand: { fields: { name: text().required(), parent: belongsTo('Brand') } },
    Item: {
      fields: {
        title: text().max(200).required().searchable(),
        contactMail: email(),
        price: number().min(0),
        inStock: boolean(),
        arrivesOn: date(),
        size: enumeration('Small', 'Large'),
        brand: belongsTo('Brand'),
        order: text(),
      },
      computed: { label: template('{title} {order}') },
    },
  },
});

/** Two tenants that must not see each other. */
export const SHOP_TENANTS: readonly [TenantId, TenantId] = [
  tenantId('00000000-0000-7000-8000-00000000000a'),
  tenantId('00000000-0000-7000-8000-00000000000b'),
];

/** The administrator of a tenant: always the same one. */
export function aPrincipal(tenant: TenantId): Principal {
  const userId = tenant as string as UserId;
  return { userId, tenantId: tenant, sessionId: uuidv7(), role: 'Admin', actor: `user:${userId}`, scopes: SCOPES };
}

/** An answer's data, whose shape is whatever the query asked for. */
// oxlint-disable-next-line typescript/no-explicit-any -- a type of its own per query would say less than the test's expectation does
export type Json = any;

/** What /graphql answered. */
export interface Answer {
  readonly status: number;
  readonly data: Json;
  readonly errors?: readonly { message: string; path?: readonly unknown[]; extensions?: Record<string, Json> }[];
}

/** The GraphQL endpoint of some parts. The token of a request is the id of its tenant, or `<tenant>/<role>` of one whose role stays. */
export interface TestApi {
  readonly fastify: FastifyInstance;
  /** Of /graphql. */
  readonly url: string;
  readonly logged: object[];
  ask(query: string, variables?: Record<string, unknown>, tenant?: TenantId): Promise<Answer>;
  /** Asks for data. @throws Error with the errors of the answer */
  data(query: string, variables?: Record<string, unknown>, tenant?: TenantId): Promise<Json>;
  close(): Promise<void>;
}

/** Tokens that are no longer good. */
export const revoked = new Set<string>();
/** Tokens of which nobody can tell for now. */
export const unanswered = new Set<string>();
/**
 * The role of all callers whose token has none, and the scopes of all where they are machines. A test that changes it puts it back;
 * what is open of such a caller ends then.
 */
export const callers = { role: 'Admin', machine: null as readonly Scope[] | null };

/** Serves the parts as content-core does. */
export async function anApi(
  parts: readonly (ApiPart | RolePart)[],
  roles: readonly string[] = DEFAULT_ROLES,
  more: Pick<ApiServerOptions, 'introspection' | 'trusted' | 'onDenied'> = {},
): Promise<TestApi> {
  const fastify = Fastify({ forceCloseConnections: true });
  traceRequests(fastify);
  hearOut(fastify);
  const logged: object[] = [];
  const silent = createLogger('test', 'silent');
  const logger = Object.assign(Object.create(silent) as Logger, { error: (line: object) => void logged.push(line) });
  const sockets = serveApi(fastify, {
    schemas: new RoleSchemas(parts, roles),
    logger,
    ...more,
    authenticate: async (authorization) => {
      const [token, role = callers.role] = /^Bearer (.*)$/.exec(authorization ?? '')?.[1]?.split('/') ?? [];
      if (token === 'broken' || unanswered.has(token ?? '')) throw new Error('select secret from safe');
      if (revoked.has(token ?? '') || ![DEFAULT_TENANT_ID, ...SHOP_TENANTS].includes(token as TenantId))
        throw apiError('UNAUTHENTICATED', 'This needs a valid access token.');
      const tenant = token as TenantId;
      if (callers.machine)
        return { tenantId: tenant, role, actor: `token:${tenant}`, tokenId: tenant, scopes: callers.machine };
      return { ...aPrincipal(tenant), role };
    },
  });
  const url = `${await fastify.listen({ port: 0, host: '127.0.0.1' })}/graphql`;
  const ask: TestApi['ask'] = async (query, variables = {}, tenant = SHOP_TENANTS[0]) => {
    const response = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Bearer ${tenant}`, 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    });
    return { status: response.status, ...((await response.json()) as Omit<Answer, 'status'>) };
  };
  return {
    fastify,
    url,
    logged,
    ask,
    data: async (query, variables, tenant) => {
      const answer = await ask(query, variables, tenant);
      if (answer.errors) throw new Error(JSON.stringify(answer.errors));
      return answer.data;
    },
    close: async () => {
      await sockets.close();
      await fastify.close();
    },
  };
}
