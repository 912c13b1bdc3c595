import net from 'node:net';

/** When a line to Postgres is cut, seen from a transaction: before Postgres gets its COMMIT, as it gets it, or as it answers it. */
export type CutAt = 'before commit' | 'during commit' | 'after commit';

/** A line to a server that a test can cut and mend, or stall: what a client sees when the server goes away and comes back. */
export interface Cable {
  /** The server's URL, by way of this cable. */
  readonly url: string;
  /** Ends all connections and refuses new ones. */
  cut(): void;
  mend(): void;
  /** To Postgres: cuts the next connection that commits, once, and resolves when it has. Others stay, and new ones are taken. */
  cutNext(at: CutAt): Promise<void>;
  /**
   * Lets the connections that are open now stay open and carry nothing any more, either way, as when a firewall has forgotten
   * them; new ones are taken.
   */
  stall(): void;
  /** As `cutNext`, but stalls that connection instead of ending it. */
  stallNext(at: CutAt): Promise<void>;
  /** Lets stalled connections go on with what was held back, also where the client has gone meanwhile. */
  resume(): void;
  close(): Promise<void>;
}

/** How a driver ends a transaction, whichever message carries it: the word alone, up to the zero byte that ends a text. */
const COMMIT = /[\x00-\x1f]commit;?\x00/i;

/** How Postgres says that it has committed. */
const COMMITTED = 'COMMIT\0';

/** Lays a cable to the server of `url`. */
export async function aCable(url: string): Promise<Cable> {
  const target = new URL(url);
  const open = new Set<net.Socket>();
  let isCut = false;
  let next: { at: CutAt; isStall: boolean; done: () => void } | undefined;
  const server = net.createServer((near) => {
    if (isCut) return void near.destroy();
    const far = net.connect(Number(target.port), target.hostname);
    let isAnswerHeld = false;
    const end = () => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      open.add(socket);
      socket.on('error', end);
      socket.on('close', () => {
        open.delete(socket);
        end();
      });
    }
    near.on('data', (chunk) => {
      if (!next || !COMMIT.test(chunk.toString('latin1'))) return void far.write(chunk);
      const { at, isStall, done } = next;
      next = undefined;
      const breakIt = () => {
        if (isStall) for (const socket of [near, far]) socket.pause();
        else end();
        done();
      };
      if (at === 'before commit') {
        breakIt();
        if (isStall) near.unshift(chunk);
        return;
      }
      isAnswerHeld = true;
      if (at === 'after commit') {
        let answered = '';
        far.on('data', (answer) => {
          answered = answered.slice(-COMMITTED.length) + answer.toString('latin1');
          // The answers to what was sent with the COMMIT, or before it, may come first.
          if (answered.includes(COMMITTED)) breakIt();
        });
      }
      // Once it is sent, it is open whether Postgres commits before it notices.
      far.write(chunk, at === 'during commit' ? breakIt : undefined);
    });
    far.on('data', (chunk) => void (isAnswerHeld || near.write(chunk)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const through = new URL(url);
  through.hostname = '127.0.0.1';
  through.port = String((server.address() as net.AddressInfo).port);
  const cut = () => {
    isCut = true;
    for (const socket of open) socket.destroy();
  };
  return {
    url: through.href,
    cutNext: (at) => new Promise((done) => (next = { at, isStall: false, done })),
    stall: () => {
      for (const socket of open) socket.pause();
    },
    stallNext: (at) => new Promise((done) => (next = { at, isStall: true, done })),
    resume: () => {
      for (const socket of open) socket.resume();
    },
    cut,
    mend: () => (isCut = false),
    close: async () => {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
