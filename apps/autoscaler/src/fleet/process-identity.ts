import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';

/** What tells one process from another that later got the same number. */
export interface ProcessIdentity {
  readonly pid: number;
  /** The kernel's own mark of when it started; equal as long as it is the same process. */
  readonly start: string;
  /** Its whole command line. */
  readonly command: string;
}

/** Looks a process up; null when there is none, or when it has ended and only waits to be collected. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | null> {
  if (!Number.isInteger(pid) || pid <= 1) return null;
  return process.platform === 'linux' ? fromProc(pid) : fromPs(pid);
}

async function fromProc(pid: number): Promise<ProcessIdentity | null> {
  try {
    const [stat, command] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
    ]);
    // The second field is the name in parentheses and may hold anything, so fields are counted from its end (proc(5)).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state] = fields;
    if (state === 'Z' || state === 'X') return null;
    return { pid, start: fields[19] ?? '', command: command.replaceAll('\0', ' ').trim() };
  } catch {
    return null;
  }
}

async function fromPs(pid: number): Promise<ProcessIdentity | null> {
  try {
    const { stdout } = await promisify(execFile)('ps', ['-o', 'stat=,lstart=,args=', '-p', String(pid)]);
    // lstart has five words: "Sat Nov 21 08:00:00 2026".
    const [state = 'Z', ...words] = stdout.trim().split(/\s+/);
    if (state.startsWith('Z')) return null;
    return { pid, start: words.slice(0, 5).join(' '), command: words.slice(5).join(' ') };
  } catch {
    return null;
  }
}
