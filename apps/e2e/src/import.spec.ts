import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gql } from 'graphql-request';
import { eventually, graphql, logIn, subscriber } from './clients.js';
import { countsOf, generatedMailbox, HAS_REAL_MAILBOX, REAL_MAILBOX, SMALL_MAILBOX } from './mailbox.js';
import { runCommand } from './system.js';
import { theHome, theSystem } from './the-system.js';

interface Job {
  readonly id: string;
  readonly status: string;
  readonly recordsProcessed: number;
  readonly recordsNew: number;
  readonly recordsUnchanged: number;
  readonly recordsQuarantined: number;
  readonly people: number;
  readonly threads: number;
  readonly replies: number;
}

const SEARCH = gql`
  query ($input: MemorySearchInput!) {
    memorySearch(input: $input) {
      hits {
        score
        snippet
        record {
          subject
          threadSubject
        }
        people {
          address
          role
        }
      }
    }
  }
`;

interface Found {
  memorySearch: {
    hits: {
      snippet: string;
      record: { subject: string; threadSubject: string };
      people: { address: string; role: string }[];
    }[];
  };
}

describe('importing mail', () => {
  let url: string;
  let token: string;
  const folder = mkdtempSync(join(tmpdir(), 'atomo-e2e-mail-'));

  beforeAll(async () => {
    url = theSystem().services['content-core'].url;
    token = await logIn(url);
  });

  const upload = async (
    file: string,
    content: string,
  ): Promise<{ status: number; body: { jobId: string; importId: string } }> => {
    const form = new FormData();
    form.append('file', new Blob([content]), file);
    const response = await fetch(`${url}/api/imports`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
      body: form,
    });
    return { status: response.status, body: (await response.json()) as { jobId: string; importId: string } };
  };
  const job = async (id: string): Promise<Job> => {
    const response = await fetch(`${url}/api/historical-sync/${id}`, { headers: { authorization: `Bearer ${token}` } });
    return (await response.json()) as Job;
  };
  const importFile = (file: string) =>
    runCommand('npm', ['run', 'import', '--', file], { ...process.env, ATOMO_HOME: theHome() });
  const newest = async (): Promise<Job> => {
    const { historicalSyncJobs } = await graphql(url, token).request<{
      historicalSyncJobs: { nodes: { id: string }[] };
    }>('{ historicalSyncJobs(first: 1) { nodes { id } } }');
    return job(historicalSyncJobs.nodes[0]!.id);
  };
  const search = async (query: string, mode: string, limit = 5) =>
    (await graphql(url, token).request<Found>(SEARCH, { input: { query, mode, limit } })).memorySearch.hits;

  it('reads a mailbox with every oddity, sets the broken message aside, and adds nothing the second time', async () => {
    const first = await importFile(SMALL_MAILBOX);
    expect(first).toMatchObject({ code: 0 });
    expect(await newest()).toMatchObject({
      status: 'completed',
      recordsProcessed: 12,
      recordsNew: 11,
      recordsQuarantined: 1,
      people: 7,
      threads: 5,
      replies: 6,
    });
    expect((await importFile(SMALL_MAILBOX)).code).toBe(0);
    expect(await newest()).toMatchObject({
      status: 'completed',
      recordsNew: 0,
      recordsUnchanged: 11,
      people: 0,
      threads: 0,
      replies: 0,
    });
  });

  it('shows progress to a subscriber until the job has ended', async () => {
    const { body } = await upload('subscribed.mbox', generatedMailbox(400));
    const client = subscriber(url, token);
    const seen: Job[] = [];
    const progress = client.iterate<{ historicalSyncProgress: Job }>({
      query: `subscription ($id: ID!) { historicalSyncProgress(id: $id) { id status recordsProcessed recordsNew people threads replies } }`,
      variables: { id: body.jobId },
    });
    for await (const { data, errors } of progress) {
      expect(errors).toBeUndefined();
      seen.push(data!.historicalSyncProgress);
    }
    await client.dispose();
    expect(seen.at(-1)).toMatchObject({ id: body.jobId, status: 'completed', ...countsOf(400) });
    const counts = seen.map((each) => each.recordsProcessed);
    expect(counts).toEqual([...counts].sort((a, b) => a - b));
  });

  it('starts a job over a stored upload again, and finds nothing new in it', async () => {
    const { body } = await upload('again.mbox', generatedMailbox(400));
    await eventually('the first job ends', async () => (await job(body.jobId)).status === 'completed', 60_000);
    const { startHistoricalSync } = await graphql(url, token).request<{ startHistoricalSync: { id: string } }>(
      gql`
        mutation ($importId: ID!) {
          startHistoricalSync(importId: $importId) {
            id
          }
        }
      `,
      { importId: body.importId },
    );
    const second = await eventually(
      'the second job ends',
      async () => {
        const now = await job(startHistoricalSync.id);
        return now.status === 'completed' && now;
      },
      60_000,
    );
    expect(second).toMatchObject({ recordsNew: 0, recordsUnchanged: 400 });
  });

  it('refuses what is no mail, and keeps nothing of it', async () => {
    const { status, body } = await upload(
      'picture.png',
      '\u0089PNG\r\n\u001a\n and so on, for as long as pictures go on, and a little longer',
    );
    expect(status).toBe(400);
    expect(body).toMatchObject({ error: { code: 'VALIDATION_ERROR' } });
    const notMail = join(folder, 'picture.png');
    writeFileSync(notMail, '\u0089PNG\r\n\u001a\n and so on');
    const refused = await importFile(notMail);
    expect(refused.code).toBe(1);
    expect(refused.output).toContain('no mail archive');
    const missing = await importFile(join(folder, 'not-there.mbox'));
    expect(missing.code).toBe(1);
    expect(missing.output).toContain('not-there.mbox');
  });

  it('ends a job with the same counts when its worker is killed in the middle', async () => {
    const mails = 4_000;
    const path = join(folder, 'killed.mbox');
    // Messages of its own, so that every count is what this import adds.
    writeFileSync(path, generatedMailbox(mails).replaceAll('orchard.example', 'killed.example'));
    const { body } = await upload(
      'killed.mbox',
      generatedMailbox(mails).replaceAll('orchard.example', 'killed.example'),
    );
    const under = await eventually(
      'some chunks are stored',
      async () => {
        const now = await job(body.jobId);
        return now.recordsProcessed >= 300 && now;
      },
      60_000,
    );
    expect(under.status).toBe('running');
    const [worker] = theSystem().workers;
    process.kill(worker!.pid, 'SIGKILL');
    const ended = await eventually(
      'the job ends by itself',
      async () => {
        const now = await job(body.jobId);
        return ['completed', 'failed'].includes(now.status) && now;
      },
      120_000,
    );
    expect(ended).toMatchObject({
      status: 'completed',
      recordsProcessed: mails,
      recordsQuarantined: 0,
      ...countsOf(mails),
    });
    expect(theSystem().workers.map((each) => each.pid)).not.toContain(worker!.pid);
  }, 240_000);

  (HAS_REAL_MAILBOX ? it : it.skip)(
    'makes a real mailing list searchable',
    async () => {
      const { code, output } = await importFile(REAL_MAILBOX);
      expect({ code, output }).toMatchObject({ code: 0 });
      expect(await newest()).toMatchObject({
        status: 'completed',
        recordsNew: 1559,
        recordsQuarantined: 0,
        people: 413,
        replies: 940,
      });
      expect((await importFile(REAL_MAILBOX)).code).toBe(0);
      expect(await newest()).toMatchObject({
        status: 'completed',
        recordsNew: 0,
        recordsUnchanged: 1559,
        people: 0,
        threads: 0,
        replies: 0,
      });
      for (const mode of ['KEYWORD', 'HYBRID']) {
        const hits = await search('connect to PostgreSQL from R on Mac OS X', mode);
        expect(hits.map((hit) => hit.record.threadSubject)).toContain('Postgresql Options for Mac OS X');
        expect(hits[0]!.people.some((person) => person.role === 'from')).toBe(true);
      }
      expect((await search('connect to PostgreSQL from R on Mac OS X', 'VECTOR')).length).toBe(5);
    },
    120_000,
  );
});
