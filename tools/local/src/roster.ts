import fs from 'node:fs';
import net from 'node:net';
import { createInterface } from 'node:readline';
import { reasonOf, Refusal } from './refusal.js';

/** Longest line a process may send; a registration takes about a hundred bytes. */
const LINE_LIMIT = 4096;
/** How long a running supervisor may take to say who it is. */
const ASK_LIMIT_MS = 2_000;
/** Starts that race for the socket of a killed supervisor settle it in one or two rounds. */
const LOCK_ATTEMPTS = 5;

/** A process that told the supervisor's socket who it is, for as long as its connection is open. */
export interface Registered {
  readonly name: string;
  readonly pid: number;
  readonly url: string;
}

/**
 * The supervisor's socket. To hold it is the lock of an ATOMO_HOME; services and workers connect to it, tell with one JSON
 * line who they are, and end themselves when it closes. The system closes it whatever ends the supervisor.
 */
export interface Roster {
  /** True when an earlier supervisor of this home was killed: its socket was still there. */
  readonly afterCrash: boolean;
  registered(name: string): readonly Registered[];
  /** Calls `listener` after every change of what is registered. */
  onChange(listener: () => void): void;
  /** Lets go of the socket; what is still connected ends itself. */
  close(): Promise<void>;
}

/**
 * Takes the lock of a home.
 * @throws Refusal with process id and start of the supervisor that holds it
 */
export async function openRoster(socketPath: string, now: () => Date = () => new Date()): Promise<Roster> {
  const since = now().toISOString();
  const connections = new Map<net.Socket, Registered | undefined>();
  const listeners: (() => void)[] = [];
  const changed = () => listeners.forEach((listener) => listener());
  const server = net.createServer((socket) => {
    connections.set(socket, undefined);
    let unread = 0;
    // Counted before the lines are cut, so that a peer that never ends its line cannot fill our memory.
    socket.on('data', (chunk: Buffer) => {
      unread = chunk.includes(10) ? 0 : unread + chunk.length;
      if (unread > LINE_LIMIT) socket.destroy();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      const gone = connections.get(socket);
      connections.delete(socket);
      if (gone) changed();
    });
    createInterface({ input: socket }).on('line', (line) => {
      if (line === WHO) return void socket.end(`${JSON.stringify({ pid: process.pid, since })}\n`);
      const process_ = parseRegistration(line);
      if (!process_) return void socket.destroy();
      connections.set(socket, process_);
      changed();
    });
  });

  let afterCrash = false;
  for (let attempt = 1; !(await listens(server, socketPath)); attempt += 1) {
    const found = fs.statSync(socketPath, { bigint: true, throwIfNoEntry: false });
    const holder = await whoHolds(socketPath);
    if (holder) {
      const started = holder.since ? `, since ${holder.since.replace(/\.\d+Z$/, 'Z')}` : '';
      throw new Refusal(
        `Atomo is already running (pid ${holder.pid ?? 'unknown'}${started}); stop it first with Ctrl-C${holder.pid ? ` or kill ${holder.pid}` : ''}.`,
      );
    }
    if (attempt === LOCK_ATTEMPTS)
      throw new Refusal(`The socket ${socketPath} cannot be taken; delete it and try again.`);
    if (found) afterCrash = removeStale(socketPath, found) || afterCrash;
  }
  fs.chmodSync(socketPath, 0o600);

  return {
    afterCrash,
    registered: (name) =>
      [...connections.values()].filter((entry) => entry !== undefined && entry.name === name) as Registered[],
    onChange: (listener) => void listeners.push(listener),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of connections.keys()) socket.destroy();
      }),
  };
}

const WHO = '{"ask":"who"}';

function parseRegistration(line: string): Registered | undefined {
  try {
    const { name, pid, url } = JSON.parse(line) as Partial<Record<string, unknown>>;
    if (typeof name !== 'string' || !Number.isSafeInteger(pid) || typeof url !== 'string' || !URL.canParse(url))
      return undefined;
    return { name, pid: pid as number, url };
  } catch {
    return undefined;
  }
}

function listens(server: net.Server, socketPath: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const done = () => {
      server.off('error', failed);
      resolve(true);
    };
    const failed = (error: NodeJS.ErrnoException) => {
      server.off('listening', done);
      if (error.code === 'EADDRINUSE') resolve(false);
      else reject(new Refusal(`The socket ${socketPath} cannot be made: ${reasonOf(error)}. Set another ATOMO_HOME.`));
    };
    server.once('listening', done).once('error', failed).listen(socketPath);
  });
}

/** Who answers at the socket; undefined when nobody listens any more. */
function whoHolds(socketPath: string): Promise<{ pid?: number; since?: string } | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect(socketPath, () => socket.write(`${WHO}\n`));
    socket.setTimeout(ASK_LIMIT_MS, () => {
      socket.destroy();
      resolve({});
    });
    socket.on('error', (error: NodeJS.ErrnoException) =>
      resolve(['ECONNREFUSED', 'ENOENT'].includes(error.code ?? '') ? undefined : {}),
    );
    createInterface({ input: socket })
      .on('line', (line) => resolve(JSON.parse(line) as { pid: number; since: string }))
      .on('error', () => {});
    socket.on('close', () => resolve({}));
  });
}

/**
 * Removes the socket that nobody answered at, unless another start has replaced it meanwhile: it is moved aside first and
 * compared with the one that was asked, and put back if it is another.
 */
function removeStale(socketPath: string, asked: fs.BigIntStats): boolean {
  const aside = `${socketPath}.${process.pid}`;
  try {
    fs.renameSync(socketPath, aside);
  } catch {
    return false;
  }
  const moved = fs.statSync(aside, { bigint: true });
  const stale = moved.ino === asked.ino && moved.mtimeNs === asked.mtimeNs;
  if (!stale && !fs.existsSync(socketPath)) fs.renameSync(aside, socketPath);
  fs.rmSync(aside, { force: true });
  return stale;
}
