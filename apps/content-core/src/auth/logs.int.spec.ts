import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { aDatabase, eventually, type TestDatabase } from '@atomo-cc/testing';
import { aContentCore, DEVELOPMENT_LOGIN, type Json, type RunningContentCore } from '../testing/index.js';

// It starts content-core as a process, which takes seconds on a busy machine.
jest.setTimeout(120_000);

let database: TestDatabase;
let core: RunningContentCore;

beforeAll(async () => {
  database = await aDatabase([]);
  core = await aContentCore(database, { LOG_LEVEL: 'trace' });
});

afterAll(async () => {
  await core?.stop();
  await database?.drop();
});

/** What nobody may find in a log: collected while the requests are made. */
const secrets = new Map<string, string>();

function secret(name: string, value: string): string {
  secrets.set(name, value);
  return value;
}

async function post(path: string, body: unknown, token?: string): Promise<{ status: number; body: Json }> {
  const response = await fetch(`${core.url}${path}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  const text = await response.text();
  return { status: response.status, body: text === '' ? {} : JSON.parse(text) };
}

const login = async (password = DEVELOPMENT_LOGIN.password, email = DEVELOPMENT_LOGIN.email) =>
  post('/auth/login', { email, password });

test('no password, token, e-mail address or value of a record is in the log, at level trace, whatever happens', async () => {
  secret('the password', DEVELOPMENT_LOGIN.password);
  secret('the e-mail address', DEVELOPMENT_LOGIN.email);

  // Logins: right, wrong, of nobody, malformed.
  const first = (await login()).body;
  const token = secret('an access token', first.accessToken);
  const [family, refresh] = first.refreshToken.split('.');
  secret('the family of a refresh token', family);
  secret('the secret of a refresh token', refresh);
  expect((await login(secret('a wrong password', 'wrong-guess-1'))).status).toBe(401);
  expect((await login('x', secret('the address of nobody', 'nobody-1@example.com'))).status).toBe(401);
  expect((await login('x', secret('an address that is none', 'not-an-address-1'))).status).toBe(400);
  const cut = `{"email":"cut-1@example.com","password":"${secret('a password in a cut body', 'cut-password-1')}`;
  secret('an address in a cut body', 'cut-1@example.com');
  expect((await post('/auth/login', cut)).status).toBe(400);

  // Refresh: right, reused, forged.
  const doomed = (await login()).body;
  const next = (await post('/auth/refresh', { refreshToken: doomed.refreshToken })).body;
  for (const [name, { accessToken, refreshToken }] of Object.entries({ doomed, next })) {
    secret(`the access token of ${name}`, accessToken);
    secret(`the refresh token of ${name}`, refreshToken.split('.')[1]);
  }
  expect((await post('/auth/refresh', { refreshToken: doomed.refreshToken })).status).toBe(401);
  const forged = secret('a forged refresh token', `${'f'.repeat(32)}.${'0'.repeat(43)}`);
  expect((await post('/auth/refresh', { refreshToken: forged })).status).toBe(401);

  // Access tokens where they do not belong: altered, in the address, in other headers.
  expect((await post('/graphql', { query: '{ me { id } }' }, secret('an altered token', `${token}x1`))).status).toBe(
    401,
  );
  const elsewhere = { 'x-api-key': token, cookie: `token=${token}` };
  await fetch(`${core.url}/auth/me?access_token=${token}`, { headers: elsewhere });
  await fetch(`${core.url}/graphql?query=${encodeURIComponent('{ me { id } }')}&token=${token}`, {
    headers: elsewhere,
  });

  // Tokens for machines: made, used, revoked, used again.
  const create = `mutation ($input: CreateApiTokenInput!) { createApiToken(input: $input) { token apiToken { id } } }`;
  const input = { name: 'a machine', role: 'Viewer', scopes: ['read'] };
  const made = (await post('/graphql', { query: create, variables: { input } }, token)).body.data.createApiToken;
  secret('a token of a machine', made.token.slice(12));
  const change = (name: string) => ({
    query: 'mutation ($input: CreateContactInput!) { createContact(input: $input) { id } }',
    variables: { input: { name } },
  });
  const refused = await post('/graphql', change(secret('a value that was forbidden', 'Forbidden Name-1')), made.token);
  expect(refused.body.errors[0].extensions.code).toBe('FORBIDDEN');
  await post('/graphql', { query: `mutation { revokeApiToken(id: "${made.apiToken.id}") }` }, token);

  // Secrets of the tenant: as a variable, in the text, refused, and failing inside.
  const setSecret = (name: string, value: string) => {
    const variables = { name, value: secret(`a secret for ${name}`, value) };
    const query = 'mutation ($name: String!, $value: String!) { setSecret(name: $name, value: $value) { hint } }';
    return post('/graphql', { query, variables }, token);
  };
  expect((await setSecret('openai', 'sk-of-a-variable-0001')).body.data.setSecret).toEqual({ hint: '0001' });
  const inText = `mutation { setSecret(name: "slack", value: "${secret('a secret in the text', 'xoxb-in-the-text-1')}") { hint } }`;
  expect((await post('/graphql', { query: inText }, token)).body.data.setSecret).toEqual({ hint: 'xt-1' });
  expect((await setSecret('nonsense', 'sk-under-a-wrong-name-1')).body.errors).toBeTruthy();
  expect((await setSecret('openai', 'sk-with-a-line-break-1\n')).body.errors).toBeTruthy();
  await database.asOwner(`alter table tenant_secrets add constraint nobody check (hint <> '0002')`);
  expect((await setSecret('openai', 'sk-that-the-database-refuses-0002')).body.errors).toBeTruthy();

  // Records: made, refused for their values, and failing inside.
  const contact = {
    name: secret('the name of a contact', 'Grace Hopper-1'),
    email: secret('the address of a contact', 'grace-1@example.com'),
    phone: secret('the phone of a contact', '+1-555-0199-1'),
  };
  const mutation = 'mutation ($input: CreateContactInput!) { createContact(input: $input) { id } }';
  const ask = (variables: object, query = mutation) => post('/graphql', { query, variables }, token);
  expect((await ask({ input: contact })).body.data.createContact.id).toBeTruthy();
  const wrong = { ...contact, email: secret('a value of the wrong form', 'no-address-2') };
  expect((await ask({ input: wrong })).body.errors).toBeTruthy();
  expect(
    (await ask({ input: { ...contact, shoe: secret('a value of an unknown field', 'shoe-size-1') } })).body.errors,
  ).toBeTruthy();
  const literal = `mutation { createContact(input: { name: "${secret('a literal', 'Literal Name-1')}", email: 7 }) { id } }`;
  expect((await ask({}, literal)).body.errors).toBeTruthy();
  await database.asOwner(`alter table model_contact add constraint nobody check (name <> 'Broken Name-1')`);
  const broken = await ask({
    input: { ...contact, name: secret('a value that the database refuses', 'Broken Name-1') },
  });
  expect(broken.body.errors[0].extensions.code).toBe('INTERNAL_ERROR');

  // A projection that fails and says what it read, and a subject that is erased.
  await database.asOwner(`create function quote() returns trigger language plpgsql as
    $$ begin if new.phone = '+1-555-0111-1' then raise exception 'no % <%>', new.name, new.email; end if; return new; end $$`);
  await database.asOwner('create trigger quote before insert on history_contact for each row execute function quote()');
  const quoted = {
    name: secret('a name that a projection quotes', 'Quoted Name-1'),
    email: secret('an address that a projection quotes', 'quoted-1@example.com'),
    phone: '+1-555-0111-1',
  };
  const { createContact } = (await ask({ input: quoted })).body.data;
  await eventually(
    'a dead letter',
    async () => (await database.asOwner('select 1 from projection_dead_letters')).length > 0,
  );
  const path = `${core.url}/api/subjects/Contact/${createContact.id}/export`;
  const exported = await fetch(path, { headers: { authorization: `Bearer ${token}` } });
  expect(exported.headers.get('content-disposition')).toBe(`attachment; filename="Contact-${createContact.id}.json"`);
  expect(((await exported.json()) as Json).record).toMatchObject(quoted);
  const told = `select data from event_log where type = 'access.subjectExported'`;
  expect(await database.asOwner(told)).toEqual([{ data: { model: 'Contact', id: createContact.id } }]);
  const viewer = await post('/graphql', { query: create, variables: { input } }, token);
  const { token: viewing } = viewer.body.data.createApiToken;
  const statusOf = async (url: string, bearer: string) =>
    (await fetch(url, { headers: { authorization: `Bearer ${bearer}` } })).status;
  expect(await statusOf(path, viewing)).toBe(403);
  expect(await statusOf(path.replace('Contact', 'Company'), token)).toBe(404);
  const erase = 'mutation ($id: ID!) { eraseSubject(model: "Contact", id: $id, reason: "asked to") { id } }';
  expect((await ask({ id: createContact.id }, erase)).body.data.eraseSubject.id).toBeTruthy();
  await eventually(
    'it is erased',
    async () => (await database.asOwner('select 1 from subject_erasures where completed_at is not null')).length > 0,
  );

  // A socket that says who it is, and one that says it wrongly.
  for (const authorization of [
    `Bearer ${token}`,
    `Bearer ${secret('a wrong token of a socket', 'wrong-socket-token-1')}`,
  ]) {
    const client = createClient({
      url: `${core.url.replace('http', 'ws')}/graphql`,
      webSocketImpl: WebSocket,
      connectionParams: { authorization },
      retryAttempts: 0,
    });
    await new Promise<void>((done) => {
      client.subscribe(
        { query: '{ me { id } }' },
        { next: () => undefined, error: () => done(), complete: () => done() },
      );
    });
    await client.dispose();
  }

  // Another password, and everywhere out.
  const newPassword = secret('the new password', 'another passphrase-1');
  const password = { currentPassword: DEVELOPMENT_LOGIN.password, newPassword };
  expect(
    (
      await post(
        '/auth/password',
        { ...password, currentPassword: secret('a wrong current one', 'wrong-current-1') },
        token,
      )
    ).status,
  ).toBe(400);
  expect((await post('/auth/password', password, token)).status).toBe(204);
  expect((await post('/auth/logout-everywhere', {}, token)).status).toBe(204);

  const answered = () => core.output().match(/"url":"\/auth\/logout-everywhere"/g)?.length === 1;
  await eventually('the last request is in the log', () => Promise.resolve(answered()));
  await core.stop();

  const output = core.output();
  // It was traced, and the fault that was made is told: a silent log would show nothing either.
  for (const line of ['"msg":"answered"', 'a resolver failed', 'violates check constraint', 'a projection failed'])
    expect(output).toContain(line);
  const found = [...secrets]
    .map(([name, value]) => [name, value.trim()] as const)
    .filter(([, value]) => output.includes(value) || output.includes(encodeURIComponent(value)));
  expect(found.map(([name]) => name)).toEqual([]);
});
