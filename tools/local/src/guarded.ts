import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import { sleep } from '@atomo-cc/kernel';

/**
 * How long Postgres and Redis go on after their supervisor was killed without a chance to stop them: enough for the
 * services, which see the supervisor's socket close, to finish their transactions.
 */
const ORPHAN_GRACE_SECONDS = 5;

/**
 * A shell that runs a server and listens to our pipe: a line in it is the name of a signal for the server, its end means
 * that we are gone. So nothing outlives a supervisor that dies by kill -9, on any system with a POSIX shell. The server
 * gets no part of the pipe, else it would keep the pipe open itself.
 */
const GUARD = `
grace=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
{
  while read -r signal <&3; do kill -s "$signal" $server; done
  sleep "$grace" 3<&-
  kill -s INT $server
} 2>/dev/null & guard=$!
exec 3<&-
wait $server; code=$?
kill $guard 2>/dev/null; wait $guard 2>/dev/null
exit $code
`;

/** A server that ends with us, whatever ends us. */
export interface Guarded {
  /** Resolves, never rejects, with how it ended, such as "exit code 1". */
  readonly exited: Promise<string>;
  /** Everything it wrote so far to its log. */
  output(): string;
  /** Sends the signals in turn, each with its time to take effect in milliseconds, and at last ends it by force. */
  stop(steps: readonly (readonly [signal: string, limitMs: number])[]): Promise<void>;
}

/** The ordinary user that a server runs as, where we are root. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** Starts `command` under the guard, its output appended to `logFile`. */
export function startGuarded(
  command: readonly string[],
  options: { logFile: string; cwd: string; user?: ServerUser | undefined; env: Readonly<Record<string, string>> },
): Guarded {
  const log = fs.openSync(options.logFile, 'a', 0o600);
  const begin = fs.fstatSync(log).size;
  const child = spawn('/bin/sh', ['-c', GUARD, 'sh', String(ORPHAN_GRACE_SECONDS), ...command], {
    stdio: ['pipe', log, log],
    // A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which then stops things in order.
    detached: true,
    cwd: options.cwd,
    env: options.env,
    ...options.user,
  });
  fs.closeSync(log);
  child.stdin!.on('error', () => {
    // The guard has ended already; `exited` tells.
  });
  const exited = endOf(child);
  return {
    exited,
    output: () => readFrom(options.logFile, begin),
    stop: async (steps) => {
      for (const [signal, limitMs] of steps) {
        child.stdin!.write(`${signal}\n`);
        if (await settles(exited, limitMs)) return;
      }
      killGroup(child.pid, 'SIGKILL');
      await exited;
    },
  };
}

/** How a child process ended, in words; a process that could not be started ends at once. */
export function endOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(signal ? `signal ${signal}` : `exit code ${code}`));
  });
}

/** Whether `promise` settles within `limitMs` milliseconds. */
export async function settles(promise: Promise<unknown>, limitMs: number): Promise<boolean> {
  const timer = new AbortController();
  const inTime = await Promise.race([promise.then(() => true), sleep(limitMs, timer.signal).then(() => false)]);
  timer.abort();
  return inTime;
}

/** Signals a child and all that it started in its own process group; a group that is gone is no error. */
export function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** The text of a log from byte `begin` on, its last 64 KiB at most (an error and what led to it fit well). */
export function readFrom(file: string, begin: number): string {
  const TAIL = 64 * 1024;
  const handle = fs.openSync(file, 'r');
  try {
    const { size } = fs.fstatSync(handle);
    const start = Math.max(begin, size - TAIL);
    const buffer = Buffer.alloc(Math.max(0, size - start));
    return buffer.toString('utf8', 0, fs.readSync(handle, buffer, 0, buffer.length, start));
  } finally {
    fs.closeSync(handle);
  }
}
