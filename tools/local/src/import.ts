import fs from 'node:fs';
import path from 'node:path';
import { sleep } from '@atomo-cc/kernel';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { readConfig, type LocalConfig } from './config.js';
import { Progress } from './progress.js';
import { openUpload, type UploadAnswer } from './upload.js';
import { parseOptions } from './options.js';
import { reasonOf, Refusal, runCommand } from './refusal.js';
import type { RunningSystem } from './supervisor.js';

/** Without news from the subscription for this long, the job is asked for; so neither a lost socket nor a missed event hides its end. */
const QUIET_MS = 1_000;
/** How often in a row the job may not be told, for instance while content-core is being restarted. */
const ASK_ATTEMPTS = 30;
const ANSWER_LIMIT_MS = 10_000;
const DEVELOPMENT_PASSWORD = 'atomo-dev';
const EXIT_INTERRUPTED = 130;

/** A job as REST and GraphQL both tell it. */
interface Job {
  readonly id: string;
  readonly status: string;
  readonly bytesTotal: number | string | null;
  readonly bytesProcessed: number | string;
  readonly recordsProcessed: number;
  readonly recordsNew: number;
  readonly recordsUnchanged: number;
  readonly recordsQuarantined: number;
  readonly people: number;
  readonly threads: number;
  readonly replies: number;
  readonly lastError: { code: string; message: string } | null;
  readonly waitingFor: { message: string } | null;
  readonly createdAt: string;
  readonly startedAt: string | null;
  readonly completedAt: string | null;
}
const JOB_FIELDS =
  'id status bytesTotal bytesProcessed recordsProcessed recordsNew recordsUnchanged recordsQuarantined people threads replies lastError { code message } waitingFor { message } createdAt startedAt completedAt';
/** A job that waits for its quota may do so for weeks: it goes on without us. */
const ENDED = ['completed', 'failed', 'cancelled', 'waiting'];

await runCommand(async () => {
  const { values, positionals } = parseOptions('import', process.argv.slice(2), {
    url: { type: 'string' },
    email: { type: 'string' },
    password: { type: 'string' },
  });
  const config = readConfig();
  if (positionals.length !== 1)
    throw new Refusal('Name one file: npm run import -- FILE; see npm run import -- --help.');
  const file = existingFile(config, positionals[0]!);
  const url = serverUrl(config, values.url);
  process.once('SIGINT', () => {
    console.log(
      '\nThe import goes on in the background if its upload was complete; importing the file again adds nothing twice.',
    );
    process.exit(EXIT_INTERRUPTED);
  });

  const email = values.email ?? config.adminEmail;
  const token = await signIn(url, email, values.password ?? (config.adminPassword || DEVELOPMENT_PASSWORD));
  const jobId = await upload(url, token, file);
  const job = await follow(url, token, jobId);
  if (job.waitingFor)
    throw new Refusal(`After ${job.recordsProcessed} records the import waits. ${job.waitingFor.message}`);
  if (job.status !== 'completed') {
    throw new Refusal(
      job.lastError
        ? `The import ${job.status} after ${job.recordsProcessed} records: ${job.lastError.message.replace(/\.$/, '')} (${job.lastError.code}).`
        : `The import was ${job.status} after ${job.recordsProcessed} records.`,
    );
  }
  console.log(summary(job));
  return 0;
});
process.exit();

function existingFile(config: LocalConfig, given: string): string {
  for (const folder of [config.cwd, process.cwd(), config.root]) {
    const file = path.resolve(folder, given);
    const found = fs.statSync(file, { throwIfNoEntry: false });
    if (found?.isFile()) return file;
    if (found) throw new Refusal(`${file} is not a file.`);
  }
  throw new Refusal(`There is no file ${path.resolve(config.cwd, given)}.`);
}

function serverUrl(config: LocalConfig, given: string | undefined): string {
  if (given !== undefined) {
    if (!URL.canParse(given) || !/^https?:$/.test(new URL(given).protocol)) {
      throw new Refusal(`--url ${given} is not an address such as http://127.0.0.1:3000.`);
    }
    return given.replace(/\/+$/, '');
  }
  try {
    const running = JSON.parse(fs.readFileSync(path.join(config.home, 'run.json'), 'utf8')) as RunningSystem;
    return running.services['content-core']!.url;
  } catch {
    throw new Refusal('Atomo is not running (or not ready yet): start it with npm start, or name a server with --url.');
  }
}

async function signIn(url: string, email: string, password: string): Promise<string> {
  const response = await ask(`${url}/auth/login`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ email, password }),
  });
  if (response.status === 401 || response.status === 403) {
    throw new Refusal(`${url} refuses the login of ${email}: wrong email or password (--email, --password).`);
  }
  const body = (await readJson(response)) as { accessToken?: string };
  if (!body.accessToken)
    throw new Refusal(`${url} does not answer as content-core does (HTTP ${response.status} at /auth/login).`);
  return body.accessToken;
}

async function upload(url: string, token: string, file: string): Promise<string> {
  const bytes = fs.statSync(file).size;
  const bar = new Progress(`Uploading ${path.basename(file)}`);
  const sending = openUpload(`${url}/api/imports`, token, file);
  const progress = setInterval(() => bar.show(sending.sentBytes(), bytes, megabytes(sending.sentBytes(), bytes)), 100);
  let answer: UploadAnswer;
  try {
    answer = await sending.answer;
  } finally {
    clearInterval(progress);
    bar.end();
  }
  const body = answer.body as { jobId?: string; error?: { message?: string } } | undefined;
  if (answer.status === 202 && body?.jobId) {
    console.log(`Uploaded ${path.basename(file)} (${megabytes(bytes)}), job ${body.jobId}`);
    return body.jobId;
  }
  throw new Refusal(
    `The upload was refused (HTTP ${answer.status}): ${(body?.error?.message ?? 'no reason given').replace(/\.$/, '')}.`,
  );
}

/** Follows the job to its end: by subscription, and by asking whenever that is silent. */
async function follow(url: string, token: string, jobId: string): Promise<Job> {
  const bar = new Progress('Importing');
  const client = createClient({
    url: `${url.replace(/^http/, 'ws')}/graphql`,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${token}` },
    retryAttempts: 0,
    lazy: true,
    onNonLazyError: () => {},
  });
  let latest: Job | undefined;
  let wake = new AbortController();
  const unsubscribe = client.subscribe<{ historicalSyncProgress: Job }>(
    { query: `subscription { historicalSyncProgress(id: ${JSON.stringify(jobId)}) { ${JOB_FIELDS} } }` },
    {
      next: ({ data }) => {
        if (!data?.historicalSyncProgress) return;
        latest = data.historicalSyncProgress;
        wake.abort();
      },
      // Asking goes on alone.
      error: () => {},
      complete: () => {},
    },
  );
  try {
    for (let silent = 0; ;) {
      wake = new AbortController();
      await sleep(QUIET_MS, wake.signal);
      const asked = wake.signal.aborted ? undefined : await readJob(url, token, jobId);
      const job = asked ?? (wake.signal.aborted ? latest : undefined);
      if (!job) {
        if ((silent += 1) >= ASK_ATTEMPTS)
          throw new Refusal(`${url} no longer tells about job ${jobId}; it may go on there.`);
        continue;
      }
      silent = 0;
      bar.show(
        Number(job.bytesProcessed),
        Number(job.bytesTotal ?? 0),
        `${job.recordsProcessed} records, ${rate(job)} records/s`,
      );
      if (ENDED.includes(job.status)) return job;
    }
  } finally {
    bar.end();
    unsubscribe();
    void client.dispose();
  }
}

/** The job as REST tells it; undefined when content-core does not answer at this moment. */
async function readJob(url: string, token: string, jobId: string): Promise<Job | undefined> {
  const headers = { authorization: `Bearer ${token}` };
  const response = await fetch(`${url}/api/historical-sync/${encodeURIComponent(jobId)}`, {
    headers,
    signal: AbortSignal.timeout(ANSWER_LIMIT_MS),
  }).catch(() => undefined);
  if (!response?.ok) return undefined;
  return (await response.json().catch(() => undefined)) as Job | undefined;
}

/** fetch, with "nobody there" told in a sentence. */
async function ask(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, { ...init, signal: AbortSignal.timeout(ANSWER_LIMIT_MS) });
  } catch (error) {
    const reason = reasonOf((error as Error).cause ?? error);
    throw new Refusal(
      `${new URL(url).origin} cannot be reached (${reason}): is Atomo running? Start it with npm start.`,
    );
  }
}

async function readJson(response: Response): Promise<unknown> {
  return response.json().catch(() => ({}));
}

/** How long the job ran so far, or in all, in seconds. */
function secondsOf(job: Job): number {
  const end = job.completedAt ? Date.parse(job.completedAt) : Date.now();
  return Math.max(0, end - Date.parse(job.startedAt ?? job.createdAt)) / 1000;
}

function rate(job: Job): number {
  return Math.round(job.recordsProcessed / Math.max(0.001, secondsOf(job)));
}

function megabytes(...bytes: number[]): string {
  return `${bytes.map((each) => (each / 1024 / 1024).toFixed(1)).join(' of ')} MB`;
}

function summary(job: Job): string {
  const rows = [
    ['records', job.recordsProcessed],
    ['  new', job.recordsNew],
    ['  unchanged', job.recordsUnchanged],
    ['  quarantined', job.recordsQuarantined],
    ['people', job.people],
    ['threads', job.threads],
    ['replies', job.replies],
    ['seconds', secondsOf(job).toFixed(1)],
    ['records/s', rate(job)],
  ] as const;
  return ['Import completed', ...rows.map(([name, value]) => `  ${name.padEnd(13)} ${String(value).padStart(9)}`)].join(
    '\n',
  );
}
