import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

/** A real mailing list of twenty years, where it lies beside the repository. */
export const REAL_MAILBOX = resolve('../shared/data/r-sig-db.mbox.gz');
/** True where the real mailing list can be had. */
export const HAS_REAL_MAILBOX = existsSync(REAL_MAILBOX);
/** A small mailbox of our own, with every oddity; its README lists the counts. */
export const SMALL_MAILBOX = resolve('apps/historical-sync-worker/src/connectors/mbox/fixtures/orchard.mbox');

/** An mbox of `count` mails by 40 people in threads of eight, the same at every call. */
export function generatedMailbox(count: number): string {
  const mails: string[] = [];
  for (let n = 0; n < count; n += 1) {
    const writer = n % 40;
    const sent = new Date(Date.UTC(2024, 0, 1) + n * 600_000);
    const answers = n % 8 === 0 ? '' : `In-Reply-To: <mail-${n - 1}@orchard.example>\n`;
    mails.push(
      `From writer${writer}@orchard.example ${asctime(sent)}\n` +
        `From: Writer ${writer} <writer${writer}@orchard.example>\nTo: growers@orchard.example\nList-Id: <growers.orchard.example>\n` +
        `List-Post: <mailto:growers@orchard.example>\nDate: ${sent.toUTCString()}\nMessage-ID: <mail-${n}@orchard.example>\n${answers}` +
        `Subject: ${n % 8 === 0 ? '' : 'Re: '}Harvest of row ${Math.floor(n / 8)}\n\nThe trees of row ${Math.floor(n / 8)} carry ${n} apples.\n\n`,
    );
  }
  return mails.join('');
}

/** What importing it must add. */
export function countsOf(count: number) {
  return { recordsNew: count, people: 40, threads: count / 8, replies: count - count / 8 };
}

function asctime(date: Date): string {
  const [, day, month, year, time] = /^\w+, (\d+) (\w+) (\d+) ([\d:]+)/.exec(date.toUTCString())!;
  const weekday = date.toUTCString().slice(0, 3);
  return `${weekday} ${month} ${day} ${time} ${year}`;
}
