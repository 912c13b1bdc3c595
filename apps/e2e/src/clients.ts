import { createClient, type Client } from 'graphql-ws';
import { GraphQLClient } from 'graphql-request';
import { WebSocket } from 'ws';

/** The login that `npm start` prints. */
export const DEVELOPER = { email: 'admin@atomo.local', password: 'atomo-dev' };

/** Asks every 50 ms until `condition` answers something truthy. @throws Error naming `what` after `timeoutMs` */
export async function eventually<Result>(
  what: string,
  condition: () => Promise<Result> | Result,
  timeoutMs: number,
): Promise<Exclude<NonNullable<Result>, false>> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const result = await Promise.resolve()
      .then(condition)
      .catch(() => undefined);
    if (result) return result as Exclude<NonNullable<Result>, false>;
    if (Date.now() > deadline) throw new Error(`did not happen within ${timeoutMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Logs the developer in. */
export async function logIn(url: string): Promise<string> {
  const response = await fetch(`${url}/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(DEVELOPER),
  });
  const { accessToken } = (await response.json()) as { accessToken: string };
  return accessToken;
}

/** A GraphQL client with a token. */
export function graphql(url: string, token: string): GraphQLClient {
  return new GraphQLClient(`${url}/graphql`, { headers: { authorization: `Bearer ${token}` } });
}

/** A subscriber with a token. */
export function subscriber(url: string, token: string): Client {
  return createClient({
    url: `${url.replace('http', 'ws')}/graphql`,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
    retryAttempts: 0,
  });
}

/** The GraphQL error codes of a request that must fail. */
export async function codesOf(request: Promise<unknown>): Promise<string[]> {
  try {
    await request;
    return [];
  } catch (error) {
    const { response } = error as { response: { errors: { extensions: { code: string } }[] } };
    return response.errors.map((each) => each.extensions.code);
  }
}
