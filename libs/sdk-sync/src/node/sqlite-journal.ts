import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { clientError } from '../errors.js';
import type { PathKey } from '@atomo-cc/sync-protocol';
import type { AgreedFile, Cursor, Intent, Journal, JournalState, JournalWrite, PushOp, RemoteFile } from '../ports.js';

const VERSION = 1;
/** Result codes of SQLite: there is no room, and the file cannot be read or written. */
const SQLITE_FULL = 13;
const SQLITE_BROKEN: ReadonlySet<number> = new Set([8, 10, 11, 14, 26]);

const SCHEMA = `
create table if not exists facts (name text primary key, value text not null) strict;
create table if not exists base (key text primary key, path text not null, file_id text, hash text not null, size integer not null) strict;
create table if not exists remote
  (key text primary key, path text not null, file_id text not null, hash text not null, size integer not null, seq integer not null) strict;
create table if not exists intents (key text primary key, hash text not null, remote text not null) strict;
create table if not exists outbox (place integer primary key autoincrement, op_id text not null unique, op text not null, content blob) strict;
create table if not exists texts (hash text primary key, content blob not null) strict;
create table if not exists seen (disk text primary key, stat text not null, hash text not null) strict;
`;

/** What a file looked like when its hash was taken; while it looks the same it need not be read again. */
export interface Seen {
  readonly stat: string;
  readonly hash: string;
}

/** A journal in one SQLite file. Opening it is exclusive: who cannot is told that another client has the folder. */
export class SqliteJournal implements Journal {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  /** @throws Error of SQLite: `database is locked` when another process has it */
  constructor(file: string) {
    this.#database = new DatabaseSync(file);
    // An exclusive lock is held from the first write until the process ends, however it ends. Every commit is on disk.
    this.#database.exec('pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full;');
    this.#database.exec(`begin immediate; ${SCHEMA} commit;`);
    const version = this.fact('version');
    if (version === null) this.setFact('version', String(VERSION));
    else if (version !== String(VERSION)) {
      this.#database.close();
      throw new Error(`the journal is of version ${version}, and this client knows version ${VERSION}`);
    }
  }

  close(): void {
    this.#database.close();
  }

  /** A fact about this client, such as its device's id. */
  fact(name: string): string | null {
    const row = this.#prepare('select value from facts where name = ?').get(name) as { value: string } | undefined;
    return row?.value ?? null;
  }

  /** Keeps a fact. */
  setFact(name: string, value: string): void {
    this.#prepare('insert into facts values (?, ?) on conflict (name) do update set value = excluded.value').run(
      name,
      value,
    );
  }

  load(): Promise<JournalState> {
    const rows = <Row>(sql: string) => this.#prepare(sql).all() as unknown as Row[];
    const cursor = this.fact('cursor');
    type File = { key: PathKey; path: string; fileId: string; hash: string; size: number; seq: number };
    return Promise.resolve({
      cursor: cursor === null ? null : (JSON.parse(cursor) as Cursor),
      base: new Map(
        rows<File>('select key, path, file_id as fileId, hash, size from base').map(({ key, ...file }) => [
          key,
          file as AgreedFile,
        ]),
      ),
      remote: new Map(
        rows<File>('select key, path, file_id as fileId, hash, size, seq from remote').map(({ key, ...file }) => [
          key,
          file as RemoteFile,
        ]),
      ),
      intents: new Map(
        rows<{ key: PathKey; hash: string; remote: string }>('select * from intents').map(({ key, hash, remote }) => [
          key,
          { hash, remote: JSON.parse(remote) as RemoteFile } satisfies Intent,
        ]),
      ),
      outbox: rows<{ op: string; content: Uint8Array | null }>('select op, content from outbox order by place').map(
        ({ op, content }) => ({ ...(JSON.parse(op) as PushOp), ...(content && { content }) }),
      ),
    });
  }

  async commit(writes: readonly JournalWrite[]): Promise<void> {
    this.transaction(() => {
      for (const write of writes) this.#write(write);
    });
    return Promise.resolve();
  }

  text(hash: string): Promise<Uint8Array | null> {
    const row = this.#prepare('select content from texts where hash = ?').get(hash) as
      { content: Uint8Array } | undefined;
    return Promise.resolve(row ? inflateRawSync(row.content) : null);
  }

  /** Forgets texts that no file is based on any more. */
  clearTexts(): void {
    this.#database.exec('delete from texts where hash not in (select hash from base)');
  }

  /** The hashes that were taken before, by name on disk. */
  seen(): Map<string, Seen> {
    const rows = this.#prepare('select * from seen').all() as unknown as (Seen & { disk: string })[];
    return new Map(rows.map(({ disk, stat, hash }) => [disk, { stat, hash }]));
  }

  /** Keeps hashes; null: the file is gone. */
  setSeen(changed: ReadonlyMap<string, Seen | null>): void {
    this.transaction(() => {
      for (const [disk, seen] of changed) {
        if (!seen) this.#prepare('delete from seen where disk = ?').run(disk);
        else this.#prepare('insert or replace into seen values (?, ?, ?)').run(disk, seen.stat, seen.hash);
      }
    });
  }

  private transaction(work: () => void): void {
    try {
      this.#database.exec('begin immediate');
      work();
      this.#database.exec('commit');
    } catch (error) {
      // Where the disk is full SQLite has rolled back by itself.
      if (this.#database.isTransaction) this.#database.exec('rollback');
      throw faultOf(error);
    }
  }

  #write(write: JournalWrite): void {
    switch (write.to) {
      case 'cursor':
        return this.setFact('cursor', JSON.stringify(write.cursor));
      case 'text':
        this.#prepare('insert or ignore into texts values (?, ?)').run(write.hash, deflateRawSync(write.content));
        return;
      case 'outbox': {
        if (!write.entry) this.#prepare('delete from outbox where op_id = ?').run(write.opId);
        else {
          const { content, ...op } = write.entry;
          this.#prepare('insert or replace into outbox (op_id, op, content) values (?, ?, ?)').run(
            write.opId,
            JSON.stringify(op),
            content ?? null,
          );
        }
        return;
      }
      case 'intent': {
        if (!write.entry) this.#prepare('delete from intents where key = ?').run(write.key);
        else {
          const { hash, remote } = write.entry;
          this.#prepare('insert or replace into intents values (?, ?, ?)').run(write.key, hash, JSON.stringify(remote));
        }
        return;
      }
      case 'base': {
        if (!write.entry) this.#prepare('delete from base where key = ?').run(write.key);
        else {
          const { path, fileId, hash, size } = write.entry;
          this.#prepare('insert or replace into base values (?, ?, ?, ?, ?)').run(write.key, path, fileId, hash, size);
        }
        return;
      }
      case 'remote': {
        if (!write.entry) this.#prepare('delete from remote where key = ?').run(write.key);
        else {
          const { path, fileId, hash, size, seq } = write.entry;
          const values = [write.key, path, fileId, hash, size, seq];
          this.#prepare('insert or replace into remote values (?, ?, ?, ?, ?, ?)').run(...values);
        }
      }
    }
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}

function faultOf(error: unknown): unknown {
  // The lower byte is the code, the rest says more of it.
  const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
  if (code === SQLITE_FULL) {
    return clientError('SYNC_DISK_FULL', 'The disk of the folder is full; free some space', error);
  }
  if (!SQLITE_BROKEN.has(code)) return error;
  return clientError('SYNC_FOLDER_UNUSABLE', `The journal cannot be used: ${(error as Error).message}.`, error);
}
