import type { SyncEvent, SyncReport } from '@atomo-cc/sdk-sync';
import type { VaultListener } from '@atomo-cc/sdk-sync/node';
import { Progress } from './progress.js';

/** Rounds with fewer files are over before a bar could be read. */
const WORTH_A_BAR = 50;
/** Of a long list so many are shown. */
const SHOWN = 20;

/** What is said of each kind of event. */
const SAID: Readonly<Record<SyncEvent['what'], string>> = {
  downloaded: 'downloaded',
  restored: 'restored',
  uploaded: 'uploaded',
  removed: 'removed here',
  deleted: 'deleted there',
  moved: 'moved here',
  renamed: 'renamed there',
  merged: 'merged',
  conflict: 'CONFLICT',
  refused: 'NOT SYNCED',
  repaired: 'repaired',
};

/** What the user sees: a line for each file, a bar for long rounds, and at the end what needs a look. */
export class VaultReport {
  #bar = new Progress('Syncing');
  #counts = new Map<SyncEvent['what'], number>();
  #conflicts: SyncEvent[] = [];
  #isBarShown = false;
  #isOffline = false;
  #isFirst = true;
  #held = 0;

  /** @param isOnce what is not synced comes with the summary, and not before */
  constructor(private readonly isOnce: boolean) {}

  readonly listener: VaultListener = {
    onEvent: (event) => {
      this.#counts.set(event.what, (this.#counts.get(event.what) ?? 0) + 1);
      if (event.what === 'conflict') this.#conflicts.push(event);
      if (event.what === 'refused' && this.isOnce) return;
      if (!this.#isBarShown || ['conflict', 'refused', 'repaired'].includes(event.what)) this.#line(line(event));
    },
    onProgress: (done, total) => {
      this.#isBarShown = total >= WORTH_A_BAR;
      if (!this.#isBarShown) return;
      this.#bar.show(done, total, `${done} of ${total} files`);
      if (done >= total) this.end();
    },
    onSynced: (report) => {
      if (report.heldDeletes.length !== this.#held) this.#tellHeld(report.heldDeletes);
      this.#held = report.heldDeletes.length;
      if (this.isOnce || !this.#isFirst || !report.isSettled) return;
      this.#isFirst = false;
      const rest = report.refused.length + report.heldDeletes.length;
      this.#line(`Both sides are the same${rest === 0 ? '' : ', but for what is named above'}. Waiting for changes.`);
    },
    onStandstill: (why, reason) => this.#line(`${why === 'offline' ? 'offline' : 'paused'}: ${sentence(reason)}`),
    onGoingOn: (why) => this.#line(why === 'offline' ? 'online again' : 'going on'),
  };

  /** The gateway does not answer at the start; told once. */
  offline(reason: string): void {
    if (this.#isOffline) return;
    this.#isOffline = true;
    this.#line(`offline: ${sentence(reason)}`);
  }

  /** How a single comparison ended. */
  summary({ refused, heldDeletes, isSettled }: SyncReport): void {
    this.end();
    const counts = [...this.#counts]
      .filter(([what]) => what !== 'refused')
      .map(([what, count]) => `${count} ${SAID[what].toLowerCase()}`);
    if (counts.length > 0) console.log(`Done: ${counts.join(', ')}.`);
    else if (heldDeletes.length + refused.length === 0) console.log('Nothing to do: both sides are the same.');
    else console.log('Nothing else to do.');
    list('Conflicts, none of the versions is lost:', this.#conflicts.map(line));
    list(
      'Not synced:',
      refused.map(({ path, reason }) => `${shown(path || 'the folder')}: ${reason}`),
    );
    if (!isSettled) console.log('The folder is being written to all the time; run it again, or use --watch.');
  }

  /** Takes the bar away. */
  end(): void {
    if (this.#isBarShown) this.#bar.end();
    this.#isBarShown = false;
    this.#bar = new Progress('Syncing');
  }

  #tellHeld(held: readonly string[]): void {
    if (held.length === 0) return;
    list(
      `${held.length} files are gone from the folder. That many are not deleted in the store unasked:`,
      held.map(shown),
    );
    console.log('Start again with --deletes allow to delete them there, or with --deletes restore to get them back.');
  }

  #line(text: string): void {
    if (this.#isBarShown) this.end();
    console.log(text);
  }
}

function line({ what, path, detail }: SyncEvent): string {
  const more = detail === undefined ? '' : ['moved', 'renamed'].includes(what) ? ` → ${detail}` : `: ${detail}`;
  return `${SAID[what].padEnd(13)} ${shown(path || 'the folder')}${more}`;
}

/** One line each and from left to right, whatever a name holds. */
function shown(path: string): string {
  return path.replaceAll(/[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu, '?');
}

function list(title: string, lines: readonly string[]): void {
  if (lines.length === 0) return;
  console.log(title);
  for (const each of lines.slice(0, SHOWN)) console.log(`  ${each}`);
  if (lines.length > SHOWN) console.log(`  and ${lines.length - SHOWN} more`);
}

/** With a full stop. */
export function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
