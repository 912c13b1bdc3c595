import { accessEvent, accessStream, kindOf, modelStream } from '@atomo-cc/events';
import { recordAccess, type By, type Principal } from '@atomo-cc/access';
import {
  listErasures,
  readAudit,
  readStream,
  type AuditFilter,
  type AuditPage,
  type EventCodec,
} from '@atomo-cc/event-store';
import { apiError, isUuid } from '@atomo-cc/kernel';
import { messagesOf, peopleBy, type KeptMessage } from '@atomo-cc/memory';
import type { ModelDefinition, SchemaDefinition } from '@atomo-cc/schema';
import type { AppDatabase, Tx } from '@atomo-cc/platform/postgres';
import { lockRecords, referrersOf } from '../models/index.js';
import { soughtIn } from './erasures.js';

/** The form of the document; it grows when the form changes. */
const FORM = 'atomo subject 1';
/** Events and audit rows that are read at once. */
const PAGE = 500;
/** A position that the log does not reach: whatever is committed is told. */
const EVERYTHING = 2n ** 62n;
/** Messages that are read at once: each may have a text of megabytes. */
const MESSAGES_PAGE = 50;
/** Records that refer to the subject, of each relation. Their ids alone are told, so that it is seen where to look further. */
const MAX_REFERRERS = 1_000;
/** Erasures of one record that are told. */
const MAX_ERASURES = 100;

/** Whose export is wanted. */
export interface SubjectName {
  readonly model: ModelDefinition;
  readonly id: string;
}

/** Writes everything that is kept about a record, as one document that may be handed to the person it is about. */
export class SubjectExport {
  constructor(
    private readonly schema: SchemaDefinition,
    private readonly database: AppDatabase,
    private readonly codec: EventCodec,
  ) {}

  /**
   * Which record is meant, after the log was told that it is exported, by whom and from where.
   * @throws CodedError NOT_FOUND for one that there never was, or that was purged
   */
  async begin({ tenantId: tenant, actor }: Principal, model: string, id: string, by: By): Promise<SubjectName> {
    const found = this.schema.models.find(({ name }) => name === model);
    if (!found || !isUuid(id)) throw apiError('NOT_FOUND', 'There is no such record.');
    const subject = { model: found, id };
    await this.database.transaction(tenant, async (tx) => {
      const records = await lockRecords(tx, this.schema, [subject], 'look');
      const state = records.get(modelStream(found.name, id))?.state;
      if (!state || state.gone === 'purged') throw apiError('NOT_FOUND', 'There is no such record.');
      const [kind, name] = actor.split(':') as ['user' | 'token', string];
      await recordAccess(tx, tenant, accessStream(kind, name), accessEvent('subjectExported', { model, id }), by);
    });
    return subject;
  }

  /**
   * The document's text, piece by piece, a page of it in memory at a time; each page is as it is when it is read. It ends with
   * `"complete": true`: one that was cut off has no such end and is no JSON.
   */
  async *write({ tenantId: tenant }: Principal, { model, id }: SubjectName): AsyncGenerator<string, void, undefined> {
    const stream = modelStream(model.name, id);
    const within = <Result>(work: (tx: Tx) => Promise<Result>) => this.database.transaction(tenant, work);
    const written = new Members();
    yield written.begin();
    yield written.member('format', FORM);
    yield written.member('exportedAt', new Date());
    yield written.member('subject', { model: model.name, id });

    const record = (await within((tx) => lockRecords(tx, this.schema, [{ model, id }], 'look'))).get(stream)!;
    const { createdAt, updatedAt, deletedAt } = record;
    const { version, values } = record.state!;
    yield written.member('record', { id, version, createdAt, updatedAt, deletedAt, ...values });

    const addresses = new Set<string>();
    yield written.list('history');
    for (let from = 1, isMore = true; isMore; from += PAGE) {
      const events = await within(async (tx) =>
        this.codec.decode(tx, await readStream(tx, tenant, stream, { from, limit: PAGE })),
      );
      for (const address of soughtIn(model, events).addresses) addresses.add(address);
      for (const event of events) {
        const { streamVersion, recordedAt, data, metadata } = event;
        yield written.item({ version: streamVersion, action: kindOf(event), recordedAt, values: data, metadata });
      }
      isMore = events.length === PAGE;
    }
    yield written.endList();

    yield written.list('audit');
    for (let after: bigint | null = null, isMore = true; isMore;) {
      const below: bigint | null = after;
      const asked: AuditFilter = { stream, after: below, settled: EVERYTHING, limit: PAGE };
      const { entries, lookedTo }: AuditPage = await within((tx) => readAudit(tx, tenant, asked));
      for (const { position, ...row } of entries) yield written.item({ position: String(position), ...row });
      after = lookedTo ?? entries.at(-1)?.position ?? null;
      isMore = lookedTo !== null || entries.length === PAGE;
    }
    yield written.endList();

    yield written.list('referredToBy');
    for (const referrer of await within((tx) => referrersOf(tx, this.schema, { model, id }, MAX_REFERRERS)))
      yield written.item(referrer);
    yield written.endList();

    const known = [...addresses];
    yield written.member('addresses', known);
    yield written.member('people', await within((tx) => peopleBy(tx, tenant, known)));
    yield written.list('messages');
    for (let after: string | null = null, isMore = known.length > 0; isMore;) {
      const from: string | null = after;
      const page: KeptMessage[] = await within((tx) =>
        messagesOf(tx, tenant, known, { after: from, limit: MESSAGES_PAGE }),
      );
      for (const message of page) yield written.item(message);
      after = page.at(-1)?.id ?? null;
      isMore = page.length === MESSAGES_PAGE;
    }
    yield written.endList();

    const erasures = await within((tx) => listErasures(tx, { subject: stream, after: null, limit: MAX_ERASURES }));
    yield written.member('erasures', erasures);
    yield written.member('complete', true);
    yield written.end();
  }
}

/** Puts the commas between the parts of one object whose members are written one after the other. */
class Members {
  private isFirst = true;
  private isFirstItem = true;

  begin(): string {
    return '{';
  }

  member(name: string, value: unknown): string {
    return `${this.name(name)}${JSON.stringify(value)}`;
  }

  list(name: string): string {
    this.isFirstItem = true;
    return `${this.name(name)}[`;
  }

  item(value: unknown): string {
    const comma = this.isFirstItem ? '\n' : ',\n';
    this.isFirstItem = false;
    return `${comma}${JSON.stringify(value)}`;
  }

  endList(): string {
    return ']';
  }

  end(): string {
    return '\n}\n';
  }

  private name(name: string): string {
    const comma = this.isFirst ? '\n' : ',\n';
    this.isFirst = false;
    return `${comma}${JSON.stringify(name)}: `;
  }
}
