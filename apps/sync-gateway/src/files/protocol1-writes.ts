import { Injectable } from '@nestjs/common';
import type { SyncPath } from '@atomo-cc/sync-protocol';
import { Bounds } from '../bounds/index.js';
import { Contents } from '../contents/index.js';
import { requirePath, type StoreKey } from '../credentials/index.js';
import { FileWrites } from './file-writes.js';
import type { Expectation } from './preconditions.js';
import type { Intent, Outcome } from './workspace.js';

/** Who writes, and the socket that need not hear of it. */
export interface Protocol1Writer {
  readonly key: StoreKey;
  readonly sender?: string;
  /** What must hold of the file at the path; for REST alone, events know no conditions. */
  readonly expected?: readonly Expectation[];
}

/**
 * What protocol 1 writes, the same for its sockets and its routes. Without a precondition the last writer wins, and
 * what was overwritten is in the history. A key that does too much at once is kept waiting, because the plugin takes a refusal
 * for a write.
 */
@Injectable()
export class Protocol1Writes {
  constructor(
    private readonly writes: FileWrites,
    private readonly contents: Contents,
    private readonly bounds: Bounds,
  ) {}

  async put(
    writer: Protocol1Writer,
    path: SyncPath,
    content: string,
    existing: 'overwrite' | 'keep' | 'refuse',
  ): Promise<Outcome> {
    await this.admit(writer, content.length, path);
    const prepared = await this.contents.ofContent(writer.key, path, content);
    return this.write(writer, { kind: 'put', path, content: prepared, existing, expected: writer.expected ?? [] });
  }

  async delete(writer: Protocol1Writer, path: SyncPath): Promise<Outcome> {
    await this.admit(writer, 0, path);
    return this.write(writer, { kind: 'delete', path, expected: writer.expected ?? [] });
  }

  /** Deletes all files that the key covers. */
  async deleteAll(writer: Protocol1Writer): Promise<Outcome> {
    await this.admit(writer, 0);
    const { prefixes } = writer.key;
    if (prefixes.length === 0) return this.write(writer, { kind: 'delete-folder', folder: null });
    const outcomes: Outcome[] = [];
    for (const folder of prefixes) outcomes.push(await this.write(writer, { kind: 'delete-folder', folder }));
    return { ...outcomes.at(-1)!, changes: outcomes.flatMap(({ changes }) => changes) };
  }

  async rename(writer: Protocol1Writer, from: SyncPath, to: SyncPath): Promise<Outcome> {
    await this.admit(writer, 0, from, to);
    const instead = await this.contents.ofContent(writer.key, to, '');
    return this.write(writer, { kind: 'rename', from, to, instead, expected: writer.expected ?? [] });
  }

  private async admit({ key }: Protocol1Writer, bytes: number, ...paths: SyncPath[]): Promise<void> {
    for (const path of paths) requirePath(key, path);
    await this.bounds.takeSlowly(key.id, 1, bytes);
  }

  private async write({ key, sender }: Protocol1Writer, intent: Intent) {
    const { outcome } = await this.writes.write({
      key,
      intent,
      ...(sender !== undefined && { sender }),
    });
    return outcome;
  }
}
