import type { IncomingMessage } from 'node:http';
import { BlockList, isIP, isIPv4 } from 'node:net';

/** More proxies than this stand in front of nobody; a longer header is not read further. */
const MOST_PROXIES = 20;

/** True for the addresses of proxies that may say whom they speak for. */
export type IsTrusted = (address: string) => boolean;

/**
 * @param proxies addresses and networks (`10.0.0.0/8`, `fd00::/8`); with none nobody is believed
 * @throws RangeError naming an entry that is neither
 */
export function trustedProxies(proxies: readonly string[]): IsTrusted {
  const list = new BlockList();
  for (const entry of proxies) {
    const [address = '', prefix, ...rest] = entry.split('/');
    const bits = isIPv4(address) ? 32 : 128;
    const isNetwork = prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= bits);
    if (isIP(address) === 0 || !isNetwork || rest.length > 0) {
      throw new RangeError(`${entry} is no address and no network`);
    }
    list.addSubnet(address, Number(prefix ?? bits), bits === 32 ? 'ipv4' : 'ipv6');
  }
  return (address) => {
    const plain = plainAddress(address);
    return isIP(plain) !== 0 && list.check(plain, isIPv4(plain) ? 'ipv4' : 'ipv6');
  };
}

/** An address as it is compared: IPv4 that came over a socket for both is written as IPv4. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=[\d.]+$)/i, '');
}

/**
 * The address that a request came from: the nearest that is no trusted proxy, by the chain that the trusted ones have written
 * into x-forwarded-for. What a caller writes there itself stands before it, and is not believed. Fastify's `request.ip` says the
 * same of its requests; this is for what is none, such as a socket.
 */
export function callerAddress(request: IncomingMessage, isTrusted: IsTrusted): string | undefined {
  let address = request.socket.remoteAddress;
  if (address === undefined) return undefined;
  const forwarded = request.headers['x-forwarded-for'];
  const chain = (Array.isArray(forwarded) ? forwarded.join(',') : (forwarded ?? '')).split(',').slice(-MOST_PROXIES);
  while (isTrusted(address)) {
    const before = chain.pop()?.trim();
    if (!before) break;
    address = before;
  }
  return address;
}
