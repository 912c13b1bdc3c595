import { Inject, Injectable } from '@nestjs/common';
import { isCodedError } from '@atomo-cc/kernel';
import { LOGGER } from '@atomo-cc/platform/lifecycle';
import type { Logger } from '@atomo-cc/platform/logging';
import { type Handshake, HANDSHAKE_ERRORS, parseHandshake, syncError } from '@atomo-cc/sync-protocol';
import { Devices } from '../audit/index.js';
import { Bounds } from '../bounds/index.js';
import { KeyRing, type StoreKey } from '../credentials/index.js';
import { errorBody } from '../faults/index.js';
import { Feeds } from '../feeds/index.js';
import type { ClientSocket } from '../sockets/index.js';

/** Who gets a socket, and whose key still holds. */
@Injectable()
export class Handshakes {
  constructor(
    private readonly keys: KeyRing,
    private readonly bounds: Bounds,
    private readonly feeds: Feeds,
    private readonly devices: Devices,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {}

  /** Lets the socket in, or answers why not: the client reads it as connect_error.message, and `data` says more. */
  async shake(socket: ClientSocket): Promise<Error | undefined> {
    const { address } = socket.handshake;
    if (!this.bounds.mayTry(address)) return refusal('RATE_LIMITED');
    try {
      const { auth, query } = socket.handshake;
      const presented: unknown = auth['apiKey'] ?? query['apiKey'];
      if (presented === undefined || presented === '') return this.refuse(address, 'UNAUTHORIZED');
      const key = await this.keys.find(presented);
      if (!key) return this.refuse(address, 'INVALID_KEY');
      const hello = auth['protocol'] === undefined ? null : parseHandshake(auth);
      if (key.permissions.includes('read')) await this.feeds.open(key);
      if (!this.bounds.enter(key.id)) return refusal('RATE_LIMITED');
      this.admit(socket, key, hello);
      if (hello) this.devices.seen(key, hello.device);
      return undefined;
    } catch (error) {
      if (isCodedError(error) && Object.hasOwn(HANDSHAKE_ERRORS, error.code)) {
        return Object.assign(refusal(error.code as keyof typeof HANDSHAKE_ERRORS), { data: errorBody(error) });
      }
      // The key is there, and its store is not: it was deleted just now.
      if (isCodedError(error) && error.code === 'NOT_FOUND') return refusal('INVALID_KEY');
      this.logger.error({ err: error }, 'a handshake failed');
      return new Error('INTERNAL_ERROR');
    }
  }

  /**
   * The key of a socket as it is now, asked for every event. A socket whose key ended is ended too, after its ack.
   * @throws CodedError UNAUTHORIZED (KEY_REVOKED, KEY_EXPIRED for protocol 2)
   */
  async keyOf(socket: ClientSocket): Promise<StoreKey> {
    const { hash, expiresAt } = socket.data.key;
    const key = await this.keys.current(hash);
    if (key) return key;
    const code = expiresAt !== null && expiresAt <= Date.now() ? 'KEY_EXPIRED' : 'KEY_REVOKED';
    if (socket.data.protocol === 2) socket.emit('revoked', { code });
    setImmediate(() => socket.disconnect(true));
    throw syncError(code, code === 'KEY_EXPIRED' ? 'The time of the API key is over.' : 'The API key was revoked.');
  }

  private admit(socket: ClientSocket, key: StoreKey, hello: Handshake | null): void {
    const cursor = hello?.cursor ? { epoch: hello.cursor.epoch, from: hello.cursor.seq } : null;
    Object.assign(socket.data, {
      key,
      protocol: hello ? 2 : 1,
      device: hello?.device ?? null,
      cursor,
      presence: null,
    } satisfies ClientSocket['data']);
    // Of the underlying connection, because one that ends before it is let in has no `disconnect` of its own.
    if (socket.conn.readyState !== 'open') this.bounds.leave(key.id);
    else socket.conn.once('close', () => this.bounds.leave(key.id));
  }

  private refuse(address: string, code: keyof typeof HANDSHAKE_ERRORS): Error {
    this.bounds.failed(address);
    return refusal(code);
  }
}

function refusal(code: keyof typeof HANDSHAKE_ERRORS): Error {
  return new Error(code);
}
