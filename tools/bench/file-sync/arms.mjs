// Writers and readers as people have them: socket.io-client for the gateway and the relay, its provider for Hocuspocus. An arm is
// {writer, readers}; `write` sends an edit and answers {mark, acked}, `listen` calls back with the marks that a reader hears of.
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { HocuspocusProvider } from '@hocuspocus/provider';
import { io } from 'socket.io-client';
import { WebSocket } from 'ws';
import * as Y from 'yjs';
import { aStore } from './servers.mjs';

const NOTE_BYTES = 1024;
/** What an edit of Hocuspocus replaces; the gateway is sent the whole note. */
const EDIT_CHARACTERS = 10;

const filler = randomBytes(1024 * 1024).toString('base64');
let texts = 0;

/** A text of `size` bytes that was never written before. */
export function text(size = NOTE_BYTES) {
  texts += 1;
  const head = `${texts} `;
  return head + filler.slice(texts % 997, (texts % 997) + size - head.length);
}

/** The hash as protocol 2 has it. */
export function hashOf(bytes) {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** The operation that writes a new text to a file. */
export function put(path, size) {
  const bytes = Buffer.from(text(size));
  return {
    opId: randomUUID(),
    op: 'put',
    path,
    hash: hashOf(bytes),
    size: bytes.length,
    inline: bytes.toString('base64'),
  };
}

/** What protocol 2 is greeted with. */
export function two(apiKey, id, more = {}) {
  return { apiKey, protocol: 2, device: { id }, ...more };
}

/** A client of Socket.IO, connected. */
async function connect(url, auth) {
  const socket = io(url, { transports: ['websocket'], forceNew: true, reconnection: false, auth });
  await new Promise((resolve, reject) => {
    socket.once(auth?.protocol === 2 ? 'ready' : 'connect', resolve);
    socket.once('connect_error', reject);
  });
  return socket;
}

/** A person's client as libs/sdk-sync is one: what is edited while a push is under way goes with the next, in one push. */
export class Pusher {
  #waiting = [];
  #isPushing = false;
  #socket;

  static async connect(url, auth) {
    const pusher = new Pusher();
    pusher.#socket = await connect(url, auth);
    return pusher;
  }

  /** Writes a new text to a file; resolves with its ack. */
  edit(path) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ op: put(path), resolve, reject });
      if (!this.#isPushing) void this.#push();
    });
  }

  close() {
    this.#socket.disconnect();
  }

  async #push() {
    this.#isPushing = true;
    while (this.#waiting.length > 0) {
      const sent = this.#waiting.splice(0, 100);
      const { results } = await this.#socket.emitWithAck('push', { ops: sent.map(({ op }) => op) });
      for (const [place, { success, error }] of results.entries()) {
        if (success) sent[place].resolve();
        else sent[place].reject(new Error(JSON.stringify(error)));
      }
      // What is edited upon these acks goes together.
      await new Promise((resolve) => setImmediate(resolve));
    }
    this.#isPushing = false;
  }
}

const many = (count, one) => Promise.all(Array.from({ length: count }, (_, n) => one(n)));

function listenWith(marksOf) {
  return (socket, listener) => {
    const hear = (news) => listener(marksOf(news));
    socket.on('changes', hear);
    return () => socket.off('changes', hear);
  };
}

/** One writes to a node, `count` others hear of it on that or another one. */
export async function gatewayArm(writesTo, hearsFrom, count) {
  const [key] = await aStore(writesTo);
  const writer = await connect(writesTo.url, two(key, 'w'));
  const readers = await many(count, (n) => connect(hearsFrom.url, two(key, `r${n}`)));
  return {
    readers,
    write: (n) => {
      const op = put(`${n}.md`);
      return { mark: op.opId, acked: writer.emitWithAck('push', { ops: [op] }) };
    },
    listen: listenWith(({ changes }) => changes.map(({ opId }) => opId)),
    end: () => [writer, ...readers].forEach((socket) => socket.disconnect()),
  };
}

/** The same by a bare relay. */
export async function relayArm(relay, count) {
  const writer = await connect(relay.url);
  const readers = await many(count, () => connect(relay.url));
  return {
    readers,
    write: () => {
      const op = put('a.md');
      return { mark: op.opId, acked: writer.emitWithAck('write', op) };
    },
    listen: listenWith(({ opId }) => [opId]),
    end: () => [writer, ...readers].forEach((socket) => socket.disconnect()),
  };
}

let documents = 0;

/** One of the people who have a document of notes open. */
class Author {
  #document = new Y.Doc();
  #pending = [];
  #provider;
  #isDurable;

  static async open(url, name, isDurable) {
    const author = new Author();
    author.#isDurable = isDurable;
    await new Promise((resolve) => {
      author.#provider = new HocuspocusProvider({
        url,
        name,
        document: author.#document,
        WebSocketPolyfill: WebSocket,
        onSynced: resolve,
        onUnsyncedChanges: ({ number }) => author.#acked(number),
        onStateless: ({ payload }) => author.#stored(new Map(JSON.parse(payload))),
      });
    });
    return author;
  }

  /** Replaces some characters of a note; resolves with the ack, or once it is stored. */
  edit(note) {
    const shared = this.#document.getText(note);
    return new Promise((resolve) => {
      const place = this.#pending.push({ resolve }) - 1;
      this.#document.transact(() => {
        if (shared.length === 0) shared.insert(0, text());
        const at = Math.floor(Math.random() * (shared.length - EDIT_CHARACTERS));
        shared.delete(at, EDIT_CHARACTERS);
        shared.insert(at, text(EDIT_CHARACTERS));
      });
      this.#pending[place].clock = Y.getState(this.#document.store, this.#document.clientID);
    });
  }

  /** Calls back on every edit of others. */
  listen(listener) {
    const hear = (_update, origin) => origin === this.#provider && listener();
    this.#document.on('update', hear);
    return () => this.#document.off('update', hear);
  }

  close() {
    this.#provider.destroy();
  }

  #acked(left) {
    if (this.#isDurable) return;
    while (this.#pending.length > left) this.#pending.shift().resolve();
  }

  #stored(clocks) {
    const clock = clocks.get(this.#document.clientID) ?? 0;
    while (this.#pending.length > 0 && this.#pending[0].clock <= clock) this.#pending.shift().resolve();
  }
}

/** Authors of one document. */
export async function authors({ url }, count, isDurable) {
  documents += 1;
  const name = `notes-${documents}`;
  return many(count, () => Author.open(url, name, isDurable));
}

/** The same by Hocuspocus as it is shipped: one edits a note, `count` others have the document open. */
export async function hocuspocusArm(server, count) {
  const [writer, ...readers] = await authors(server, count + 1, false);
  return {
    readers,
    write: () => ({ mark: 'edit', acked: writer.edit('note') }),
    listen: (reader, listener) => reader.listen(() => listener(['edit'])),
    end: () => [writer, ...readers].forEach((author) => author.close()),
  };
}
