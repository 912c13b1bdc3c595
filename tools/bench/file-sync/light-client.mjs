// A client of Socket.IO that costs its own process little, so that what is measured is the server: one WebSocket, payloads sent
// as they are given, and of what comes only the beginning is looked at. What it is sent, and answers, is what any client is.
import { once } from 'node:events';
import { WebSocket } from 'ws';

const [EVENT, ACK] = ['42', '43'];

/** One connection. */
export class LightClient {
  /** Events that came, and what they took on the wire. */
  events = 0;
  bytes = 0;
  /** Hears of every event, if it is set: its name, and what makes its payload's JSON. */
  listener;
  /** Whether the connection has ended. */
  hasEnded = false;
  #acks = new Map();
  #nextId = 0;
  #waiting = new Map();
  #socket;

  /** Resolves when the server has let it in, and for protocol 2 when it has said `ready`. */
  static async connect(url, auth) {
    const client = new LightClient();
    const socket = new WebSocket(`${url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`, {
      perMessageDeflate: false,
    });
    client.#socket = socket;
    socket.on('message', (data) => client.#take(data, auth));
    const first = auth?.protocol === 2 ? 'ready' : 'connected';
    const isIn = new Promise((resolve) => client.#waiting.set(first, resolve));
    const refused = once(socket, 'close').then(() => {
      client.hasEnded = true;
      throw new Error('the server ended the connection');
    });
    refused.catch(() => undefined);
    client.ready = await Promise.race([isIn, refused]);
    return client;
  }

  /** Sends an event whose payload is JSON already, and answers the JSON of its ack. */
  send(event, json) {
    const id = this.#nextId++;
    this.#socket.send(`${EVENT}${id}["${event}",${json}]`);
    return new Promise((resolve) => this.#acks.set(id, resolve));
  }

  /** Takes nothing off the line until `resume`. */
  pause() {
    this.#socket.pause();
  }

  resume() {
    this.#socket.resume();
  }

  close() {
    this.#socket.terminate();
  }

  #take(data, auth) {
    this.bytes += data.length;
    const kind = data.toString('latin1', 0, 2);
    if (kind === ACK) {
      const open = data.indexOf('[');
      const id = Number(data.toString('latin1', 2, open));
      this.#acks.get(id)?.(data.toString('utf8', open + 1, data.length - 1));
      this.#acks.delete(id);
    } else if (kind === EVENT) {
      this.events += 1;
      if (this.#waiting.size === 0 && !this.listener) return;
      const name = data.toString('latin1', 4, data.indexOf('"', 4));
      const payload = () => data.toString('utf8', 4 + name.length + 2, data.length - 1);
      this.#tell(name, payload);
      this.listener?.(name, payload);
    } else if (kind === '2') this.#socket.send('3');
    else if (kind[0] === '0') this.#socket.send(`40${JSON.stringify(auth ?? {})}`);
    else if (kind === '40') this.#tell('connected', () => '');
    else if (kind === '44') throw new Error(`refused: ${data}`);
  }

  #tell(event, payload) {
    const waiting = this.#waiting.get(event);
    this.#waiting.delete(event);
    waiting?.(payload());
  }
}
