import { createHmac, hkdfSync, timingSafeEqual, type Hmac } from 'node:crypto';
import { CodedError, type TenantId } from '@atomo-cc/kernel';
import type { SystemDatabase, Tx } from '@atomo-cc/platform/postgres';
import { EVENT_LOG_ERRORS, type LogFault, type StreamHead } from './verify.js';

const FORMAT = 'atomo-event-checkpoint';
const FORMAT_VERSION = 1;
/** Heads that are compared at once. */
const HEADS_PER_PAGE = 500;

/** What a checkpoint covers. */
export interface CheckpointScope {
  /** The only tenant in it; null for all. */
  readonly tenant: TenantId | null;
  readonly at: Date;
}

interface HeadLine {
  readonly tenant: TenantId;
  readonly stream: string;
  readonly version: number;
  readonly hash: string;
  readonly position: string;
}

/**
 * The key that signs checkpoints. Derived from AUTH_SECRET, because that is the one secret every installation has and the
 * database does not hold: whoever owns the database can rewrite streams with their links and rows, but cannot sign a
 * checkpoint that fits. Derived (HKDF, RFC 5869) rather than used itself, so that no token is ever a signature of a
 * checkpoint. After a change of AUTH_SECRET, older checkpoints need the older one.
 */
export function checkpointKey(authSecret: string): Buffer {
  return Buffer.from(hkdfSync('sha256', authSecret, '', 'atomo event checkpoint 1', 32));
}

/**
 * Writes a checkpoint line by line: what it covers, the head of every stream, and a seal over all lines before it. The
 * heads must have been verified. They need not be of one instant: a stream only grows, so a head stays true of it.
 */
export class CheckpointWriter {
  readonly #seal: Hmac;
  #streams = 0;

  constructor(
    key: Buffer,
    private readonly scope: CheckpointScope,
  ) {
    this.#seal = createHmac('sha256', key);
  }

  /** The first line. */
  begin(): string {
    return this.#sealed({ format: FORMAT, version: FORMAT_VERSION, tenant: this.scope.tenant, at: this.scope.at });
  }

  /** The line of a stream. */
  head({ tenant, stream, version, hash, position }: StreamHead): string {
    this.#streams += 1;
    const line: HeadLine = { tenant, stream, version, hash: hash.toString('hex'), position: String(position) };
    return this.#sealed(line);
  }

  /** The last line. */
  end(): string {
    return `${JSON.stringify({ streams: this.#streams, seal: this.#seal.digest('hex') })}\n`;
  }

  #sealed(content: object): string {
    // Some readers take these two for the end of a line; JSON may hold them escaped as well.
    const json = JSON.stringify(content).replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029');
    const line = `${json}\n`;
    this.#seal.update(line);
    return line;
  }
}

/**
 * The heads of a checkpoint, one at a time; the return value is what it covers. The seal stands at the end, so heads that
 * came before a throw are not to be believed: read it to its end once before you act on any.
 * @param lines without their line ends
 * @throws CodedError LOG_CHECKPOINT_INVALID
 */
export async function* readCheckpoint(
  lines: AsyncIterable<string>,
  key: Buffer,
): AsyncGenerator<StreamHead, CheckpointScope> {
  const seal = createHmac('sha256', key);
  let scope: CheckpointScope | undefined;
  let streams = 0;
  let isSealed = false;
  for await (const line of lines) {
    if (isSealed) throw invalid('something follows its seal');
    const content = parseLine(line);
    if (!scope) {
      if (content['format'] !== FORMAT) throw invalid('it is no checkpoint');
      if (content['version'] !== FORMAT_VERSION) throw invalid(`its version is not ${FORMAT_VERSION}`);
      scope = { tenant: content['tenant'] as TenantId | null, at: new Date(String(content['at'])) };
    } else if (typeof content['seal'] === 'string') {
      const given = Buffer.from(content['seal'], 'hex');
      const right = seal.digest();
      if (given.length !== right.length || !timingSafeEqual(given, right)) throw invalid('its signature is wrong');
      if (content['streams'] !== streams) throw invalid('its number of streams is wrong');
      isSealed = true;
      continue;
    } else {
      streams += 1;
      yield toHead(content as unknown as HeadLine);
    }
    seal.update(`${line}\n`);
  }
  if (!scope || !isSealed) throw invalid('its end is missing');
  return scope;
}

/**
 * Compares the log with what a checkpoint knows of it, and tells where events have gone or become others since. Only
 * together with a verification without faults does it prove that all events of the checkpoint are as they were: the link
 * of a stream's last event stands for all before it.
 */
export async function compareWithCheckpoint(
  database: SystemDatabase,
  heads: AsyncIterable<StreamHead>,
  options: { readonly tenant?: TenantId | undefined; readonly onFault: (fault: LogFault) => void },
): Promise<{ readonly streams: number; readonly broken: number }> {
  const totals = { streams: 0, broken: 0 };
  const compare = async (page: readonly StreamHead[]) => {
    const found = await database.transaction((tx) => findAgain(tx, page));
    for (const [n, head] of page.entries()) {
      totals.streams += 1;
      const fault = faultOf(head, found[n]!);
      if (!fault) continue;
      totals.broken += 1;
      options.onFault(fault);
    }
  };
  let page: StreamHead[] = [];
  for await (const head of heads) {
    if (options.tenant && head.tenant !== options.tenant) continue;
    page.push(head);
    if (page.length < HEADS_PER_PAGE) continue;
    await compare(page);
    page = [];
  }
  if (page.length > 0) await compare(page);
  return totals;
}

interface FoundAgain {
  /** Of the event that was the last one; null when it is not there. */
  readonly position: string | null;
  readonly hash: Buffer | null;
  /** The last event that is there now up to the one that was; null when there is none. */
  readonly newest: number | null;
  readonly newestPosition: string | null;
}

/** What is there now of these heads, in their order. */
async function findAgain(tx: Tx, heads: readonly StreamHead[]): Promise<FoundAgain[]> {
  return tx.query<FoundAgain>(
    `select e.position, e.hash, n.stream_version as newest, n.position as "newestPosition"
     from unnest($1::uuid[], $2::text[], $3::int[]) with ordinality as h (tenant_id, stream, version, n)
     left join lateral (
       select position, hash from event_log l
       where l.tenant_id = h.tenant_id and l.stream = h.stream and l.stream_version = h.version limit 1) e on true
     left join lateral (
       select stream_version, position from event_log l
       where l.tenant_id = h.tenant_id and l.stream = h.stream and l.stream_version <= h.version
       order by l.stream_version desc limit 1) n on true
     order by h.n`,
    [heads.map(({ tenant }) => tenant), heads.map(({ stream }) => stream), heads.map(({ version }) => version)],
  );
}

function faultOf(head: StreamHead, found: FoundAgain): LogFault | undefined {
  if (head.version === 0) return undefined;
  const { tenant, stream, version } = head;
  const position = found.newestPosition === null ? null : BigInt(found.newestPosition);
  if (found.newest === null) return { code: 'LOG_STREAM_GONE', tenant, stream, version, position };
  if (found.newest < version) {
    return { code: 'LOG_STREAM_SHORTER', tenant, stream, version: found.newest + 1, position };
  }
  const isSame = head.hash.equals(found.hash ?? Buffer.alloc(0)) && head.position === position;
  return isSame ? undefined : { code: 'LOG_HISTORY_REWRITTEN', tenant, stream, version, position };
}

function toHead({ tenant, stream, version, hash, position }: HeadLine): StreamHead {
  if (typeof stream !== 'string' || typeof hash !== 'string' || !Number.isInteger(version) || !/^\d+$/.test(position)) {
    throw invalid('a line is no head of a stream');
  }
  return { tenant, stream, version, hash: Buffer.from(hash, 'hex'), position: BigInt(position) };
}

function parseLine(line: string): Record<string, unknown> {
  try {
    const content: unknown = JSON.parse(line);
    if (typeof content === 'object' && content !== null) return content as Record<string, unknown>;
  } catch {
    // Told below, as any other line that is none of ours.
  }
  throw invalid('a line is no JSON object');
}

function invalid(reason: string): CodedError {
  return new CodedError(
    'LOG_CHECKPOINT_INVALID',
    `The checkpoint cannot be used: ${reason}. ${EVENT_LOG_ERRORS.LOG_CHECKPOINT_INVALID}`,
  );
}
