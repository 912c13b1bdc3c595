import { gql } from 'graphql-request';
import { codesOf, graphql, logIn, subscriber } from './clients.js';
import { theSystem } from './the-system.js';

const CONTACT = gql`
  mutation ($input: CreateContactInput!) {
    createContact(input: $input) {
      id
      version
      name
      birthday
      company {
        name
      }
    }
  }
`;

describe('content-core', () => {
  let url: string;
  let api: ReturnType<typeof graphql>;

  beforeAll(async () => {
    url = theSystem().services['content-core'].url;
    api = graphql(url, await logIn(url));
  });

  it('answers health and metrics without a token, and nothing else', async () => {
    for (const path of ['/health/live', '/health/ready', '/metrics']) {
      expect((await fetch(url + path)).status).toBe(200);
    }
    const refused = await Promise.all([
      fetch(`${url}/auth/me`),
      fetch(`${url}/meta/schema`),
      fetch(`${url}/api/imports`, { method: 'POST' }),
      fetch(`${url}/api/historical-sync/1`),
      fetch(`${url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query: '{ __typename }' }),
      }),
    ]);
    expect(refused.map((response) => response.status)).toEqual([401, 401, 401, 401, 401]);
  });

  it('keeps what is created, with its relation, and tells what happened', async () => {
    const { createCompany } = await api.request<{ createCompany: { id: string } }>(gql`
      mutation {
        createCompany(input: { name: "Orchard Ltd" }) {
          id
        }
      }
    `);
    const input = {
      name: 'Ada',
      email: 'Ada@Orchard.example',
      birthday: '1815-12-10',
      companyId: createCompany.id,
      stage: 'Lead',
    };
    const { createContact } = await api.request<{ createContact: { id: string } }>(CONTACT, { input });
    expect(createContact).toMatchObject({ version: 1, birthday: '1815-12-10', company: { name: 'Orchard Ltd' } });

    const { updateContact } = await api.request<{ updateContact: object }>(
      gql`
        mutation ($id: ID!) {
          updateContact(id: $id, input: { stage: Customer, phone: null }, expectedVersion: 1) {
            version
            stage
            email
          }
        }
      `,
      { id: createContact.id },
    );
    expect(updateContact).toEqual({ version: 2, stage: 'Customer', email: 'ada@orchard.example' });

    const { events } = await api.request<{ events: { nodes: object[] } }>(
      gql`
        query ($stream: String!) {
          events(stream: $stream) {
            nodes {
              type
              streamVersion
              data
            }
          }
        }
      `,
      { stream: `Contact-${createContact.id}` },
    );
    expect(events.nodes).toEqual([
      { type: 'Contact.created', streamVersion: 1, data: { ...input, email: 'ada@orchard.example' } },
      { type: 'Contact.updated', streamVersion: 2, data: { stage: 'Customer' } },
    ]);
  });

  it('says what is wrong by code', async () => {
    const { createContact } = await api.request<{ createContact: { id: string } }>(CONTACT, { input: { name: 'Bob' } });
    const update = gql`
      mutation ($id: ID!, $expected: Int) {
        updateContact(id: $id, input: { name: "Rob" }, expectedVersion: $expected) {
          id
        }
      }
    `;
    expect(await codesOf(api.request(CONTACT, { input: { name: ' ' } }))).toEqual(['VALIDATION_ERROR']);
    expect(await codesOf(api.request(CONTACT, { input: { name: 'Eve', companyId: createContact.id } }))).toEqual([
      'VALIDATION_ERROR',
    ]);
    expect(await codesOf(api.request(update, { id: createContact.id, expected: 7 }))).toEqual(['CONFLICT']);
    expect(await codesOf(api.request(update, { id: '00000000-0000-7000-8000-00000000dead' }))).toEqual(['NOT_FOUND']);
    expect(await codesOf(api.request('{ nothing }'))).toEqual(['VALIDATION_ERROR']);
    expect(await codesOf(graphql(url, 'forged').request('{ __typename }'))).toEqual(['UNAUTHENTICATED']);
  });

  it('pages through a list by cursor, filtered and ordered, each record once', async () => {
    const names = Array.from({ length: 7 }, (_, n) => `Pager ${n}`);
    for (const name of names) await api.request(CONTACT, { input: { name } });
    const page = gql`
      query ($after: String) {
        contacts(where: { name: { startsWith: "Pager" } }, orderBy: [{ name: DESC }], first: 3, after: $after) {
          totalCount
          nodes {
            name
          }
          pageInfo {
            hasNextPage
            endCursor
          }
        }
      }
    `;
    interface Page {
      contacts: {
        totalCount: number;
        nodes: { name: string }[];
        pageInfo: { hasNextPage: boolean; endCursor: string };
      };
    }
    const seen: string[] = [];
    let after: string | null = null;
    do {
      const { contacts }: Page = await api.request<Page>(page, { after });
      expect(contacts.totalCount).toBe(7);
      seen.push(...contacts.nodes.map((node) => node.name));
      after = contacts.pageInfo.hasNextPage ? contacts.pageInfo.endCursor : null;
    } while (after);
    expect(seen).toEqual([...names].reverse());
  });

  it('refuses subscribers without a token', async () => {
    const client = subscriber(url, 'forged');
    const first = client.iterate({ query: 'subscription { historicalSyncProgress(id: "x") { id } }' }).next();
    await expect(first).rejects.toMatchObject({ code: 4403 });
    await client.dispose();
  });

  it('ends a session at logout', async () => {
    const token = await logIn(url);
    const headers = { authorization: `Bearer ${token}` };
    expect((await fetch(`${url}/auth/me`, { headers })).status).toBe(200);
    await fetch(`${url}/auth/logout`, { method: 'POST', headers });
    expect((await fetch(`${url}/auth/me`, { headers })).status).toBe(401);
  });
});
