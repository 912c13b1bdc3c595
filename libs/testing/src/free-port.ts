import { randomInt } from 'node:crypto';
import net from 'node:net';

/** Below the ports that systems give to whoever asks for any (from 32,768 or 49,152), and above those that services are known by. */
const [FIRST, LAST] = [10_240, 32_000];

let next = randomInt(FIRST, LAST);

/**
 * A port of 127.0.0.1 on which nobody listens, for a process that is started later. No connection and no server that takes any
 * port is given it meanwhile.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = next;
    next = port < LAST ? port + 1 : FIRST;
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
