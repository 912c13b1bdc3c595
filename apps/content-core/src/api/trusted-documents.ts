import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { Kind } from 'graphql';
import { apiError, CodedError } from '@atomo-cc/kernel';
import { ADMIN } from '@atomo-cc/schema';
import { brokenLimit, readDocument } from './document-limits.js';

/** Refusals of a manifest, when the service starts. */
export const TRUSTED_DOCUMENTS_ERRORS = {
  TRUSTED_DOCUMENTS_INVALID:
    'The manifest at TRUSTED_DOCUMENTS has faults; the message lists all of them with the entry and an example of what is right.',
} as const;

/** Documents that a manifest may hold. Applications have hundreds; so many are builds upon builds that nobody has cleared away. */
const MAX_TRUSTED_DOCUMENTS = 10_000;
/** A larger file is no list of documents that people have written. */
const MAX_MANIFEST_BYTES = 64 * 1024 * 1024;
/** What an id consists of: it stands in addresses, logs and the keys of caches. */
const ID = /^[\x21-\x7e]{1,200}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const SHA256_PREFIX = 'sha256:';
const EXAMPLE = 'Example: {"a3f1…": "query Contacts { contacts { nodes { id name } } }"}';

/** Which documents are carried out beside the trusted ones: all of them, or none. */
export type Trust = 'allow' | 'only';

/** The parts of a request by which it says what is to be carried out, as they came. */
export interface Asked {
  readonly query?: unknown;
  /** Persisted documents of GraphQL over HTTP. */
  readonly documentId?: unknown;
  /** Persisted queries of Apollo, in `persistedQuery.sha256Hash`. */
  readonly extensions?: unknown;
}

/**
 * The documents that were approved when the clients were built. A request names one by its id instead of writing it; under the trust
 * `only`, all others are Admin's alone. Nothing is registered by a request: what anybody may add, nobody can trust.
 */
export class TrustedDocuments {
  /** None: whoever names one is told so, and everybody may write their own. */
  static readonly NONE = new TrustedDocuments(new Map(), 'none');

  private readonly texts: ReadonlySet<string>;

  private constructor(
    private readonly byId: ReadonlyMap<string, string>,
    private readonly trust: Trust | 'none',
  ) {
    this.texts = new Set(byId.values());
  }

  /**
   * Reads a manifest: `{id: document}`, as graphql-codegen and Relay write it, or Apollo's list of operations. Whether the documents
   * fit the schema is seen when a role first asks for one: each has a schema of its own.
   * @param file absolute
   * @throws CodedError TRUSTED_DOCUMENTS_INVALID with the file and all its faults
   */
  static read(file: string, trust: Trust): TrustedDocuments {
    const faults: string[] = [];
    const byId = new Map<string, string>();
    for (const [place, id, text] of entriesOf(file)) {
      const found = faultsOf(id, text);
      const bare = typeof id === 'string' ? bareId(id) : '';
      if (found.length === 0 && byId.has(bare)) found.push('is there twice');
      faults.push(...found.map((fault) => `  ${place}: ${fault}`));
      if (found.length === 0) byId.set(bare, text as string);
    }
    if (faults.length > 0)
      throw invalid(file, `the manifest has ${faults.length} fault(s):\n${faults.join('\n')}`, { faults });
    if (byId.size === 0) throw invalid(file, `it holds no document. ${EXAMPLE}`);
    return new TrustedDocuments(byId, trust);
  }

  /** Whether a text is one of these documents. */
  has(text: string): boolean {
    return this.texts.has(text);
  }

  /**
   * The text that a request names; undefined where it names none, or writes it out itself.
   * @throws CodedError NOT_FOUND for an unknown one; VALIDATION_ERROR for an id that is none, or of another document than is written
   */
  named({ query, documentId, extensions }: Asked): string | undefined {
    const hash = hashIn(extensions);
    const id = documentId ?? hash;
    if (id === undefined || id === null) return undefined;
    const isWritten = typeof query === 'string' && query !== '';
    if (typeof id !== 'string') throw apiError('VALIDATION_ERROR', 'documentId is a text.');
    const text = this.byId.get(bareId(id));
    if (isWritten) {
      if (text === undefined || text === query) return undefined;
      throw apiError('VALIDATION_ERROR', 'documentId names another document than query is. Send one of them.');
    }
    if (text !== undefined) return text;
    // Clients of Apollo's way know these two sentences, word by word, and send the text itself thereupon.
    if (this.trust === 'none')
      throw apiError(
        'VALIDATION_ERROR',
        documentId === undefined
          ? 'PersistedQueryNotSupported'
          : 'There are no trusted documents here. Send the document itself as query.',
      );
    throw apiError(
      'NOT_FOUND',
      documentId === undefined
        ? 'PersistedQueryNotFound'
        : 'There is no trusted document of this id. Is the manifest of this server that of your build?',
    );
  }

  /** Whether a document is carried out for a role. */
  admits(text: string, role: string): boolean {
    return this.trust !== 'only' || role === ADMIN || this.has(text);
  }

  /**
   * Refuses what is not to be carried out for a role. Admin may read and write everything as it is, and the tools of operators,
   * GraphiQL among them, write their own documents.
   * @throws CodedError FORBIDDEN
   */
  require(text: string, role: string): void {
    if (this.admits(text, role)) return;
    throw apiError('FORBIDDEN', 'Only trusted documents are carried out here. Send the documentId of one.');
  }
}

/** The place, id and text of each entry of a manifest, unseen. */
function entriesOf(file: string): [place: string, id: unknown, text: unknown][] {
  let content: unknown;
  try {
    if (statSync(file).size > MAX_MANIFEST_BYTES) throw new Error(`it has more than ${MAX_MANIFEST_BYTES} bytes`);
    content = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const said: Readonly<Record<string, string>> = {
      ENOENT: 'there is no such file. TRUSTED_DOCUMENTS is a path from the folder of ATOMO_SERVICE, or an absolute one',
      EISDIR: 'it is a folder. TRUSTED_DOCUMENTS names the file itself, such as persisted-documents.json',
    };
    throw invalid(file, said[code ?? ''] ?? `it cannot be read: ${message}. ${EXAMPLE}`);
  }
  if (!isObject(content)) throw invalid(file, `it is no object of documents by their ids. ${EXAMPLE}`);
  const isApollos = content['format'] === 'apollo-persisted-query-manifest' && Array.isArray(content['operations']);
  const entries: [string, unknown, unknown][] = isApollos
    ? (content['operations'] as unknown[]).map((entry, at) => {
        const { id, body } = isObject(entry) ? entry : {};
        return [`operations.${at}`, id, body];
      })
    : Object.entries(content).map(([id, text]) => [JSON.stringify(id), id, text]);
  if (entries.length <= MAX_TRUSTED_DOCUMENTS) return entries;
  throw invalid(file, `it has ${entries.length} documents; ${MAX_TRUSTED_DOCUMENTS} are the most`);
}

function faultsOf(id: unknown, text: unknown): string[] {
  const faults: string[] = [];
  if (typeof id !== 'string' || !ID.test(id))
    faults.push('its id is not 1 to 200 characters of ASCII without a space. Example: "contacts-v2"');
  if (typeof text !== 'string') {
    faults.push(`its document is ${JSON.stringify(text) ?? 'missing'} and no text. ${EXAMPLE}`);
    return faults;
  }
  const hash = typeof id === 'string' ? bareId(id) : '';
  // Also without the prefix: who looks it up by Apollo's sha256Hash believes that it is one.
  if (SHA256.test(hash) || (typeof id === 'string' && id.startsWith(SHA256_PREFIX))) {
    const right = createHash('sha256').update(text).digest('hex');
    if (hash !== right)
      faults.push(`its id is not the SHA-256 of its document, which is ${right}. Was the document changed by hand?`);
  }
  try {
    const document = readDocument(text);
    if (!document.definitions.some(({ kind }) => kind === Kind.OPERATION_DEFINITION))
      faults.push('its document has no operation. Example: "query Contacts { contacts { nodes { id } } }"');
    const broken = brokenLimit(document);
    if (broken) faults.push(broken.message);
  } catch (error) {
    const { message, locations } = error as {
      message: string;
      locations?: readonly { line: number; column: number }[];
    };
    const at = locations?.[0] ? ` (line ${locations[0].line}, column ${locations[0].column} of it)` : '';
    faults.push(`its document is no GraphQL: ${message}${at}`);
  }
  return faults;
}

/** Without the prefix that says how it was made: with or without it a hash means the same document. */
function bareId(id: string): string {
  return id.startsWith(SHA256_PREFIX) ? id.slice(SHA256_PREFIX.length) : id;
}

function hashIn(extensions: unknown): unknown {
  const named = isObject(extensions) ? extensions['persistedQuery'] : undefined;
  return isObject(named) ? named['sha256Hash'] : undefined;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(file: string, message: string, details?: Readonly<Record<string, unknown>>): CodedError {
  return new CodedError('TRUSTED_DOCUMENTS_INVALID', `${file}: ${message}`, details);
}
