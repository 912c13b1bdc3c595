import type { IncomingMessage } from 'node:http';
import Fastify from 'fastify';
import { callerAddress, trustedProxies } from './proxies.js';

const request = (remoteAddress: string, forwarded?: string) =>
  ({ socket: { remoteAddress }, headers: { 'x-forwarded-for': forwarded } }) as unknown as IncomingMessage;

describe('the address of a caller', () => {
  const cases: [string, string[], string, string | undefined, string][] = [
    ['nobody is believed', [], '10.0.0.1', '203.0.113.7', '10.0.0.1'],
    ['a stranger is not believed', ['10.0.0.0/8'], '198.51.100.1', '203.0.113.7', '198.51.100.1'],
    ['a proxy is', ['10.0.0.0/8'], '10.0.0.1', '203.0.113.7', '203.0.113.7'],
    ['a proxy over a socket for both families is', ['10.0.0.0/8'], '::ffff:10.0.0.1', '203.0.113.7', '203.0.113.7'],
    ['what the caller wrote itself is not', ['10.0.0.1'], '10.0.0.1', '127.0.0.1, 203.0.113.7', '203.0.113.7'],
    ['a chain of proxies is', ['10.0.0.0/8'], '10.0.0.1', '6.6.6.6, 203.0.113.7, 10.9.9.9', '203.0.113.7'],
    ['a proxy that says nothing speaks for itself', ['10.0.0.1'], '10.0.0.1', undefined, '10.0.0.1'],
    ['a network of IPv6 is', ['fd00::/8'], 'fd12::1', '2001:db8::5', '2001:db8::5'],
  ];

  it.each(cases)('%s', (_name, proxies, remote, forwarded, address) => {
    expect(callerAddress(request(remote, forwarded), trustedProxies(proxies))).toBe(address);
  });

  it('is the one that Fastify says', async () => {
    const isTrusted = trustedProxies(['127.0.0.1', '10.0.0.0/8']);
    const fastify = Fastify({ trustProxy: isTrusted, forceCloseConnections: true });
    fastify.get('/', ({ ip, raw }) => ({ ip, ours: callerAddress(raw, isTrusted) }));
    const url = await fastify.listen({ port: 0, host: '127.0.0.1' });
    try {
      const chains = [
        '203.0.113.7',
        '6.6.6.6, 203.0.113.7',
        '203.0.113.7, 10.1.1.1',
        '2001:db8::5',
        '10.1.1.1',
        '',
        'x, 10.1.1.1',
      ];
      for (const chain of chains) {
        const answer = await fetch(url, { headers: { 'x-forwarded-for': chain } });
        const { ip, ours } = (await answer.json()) as { ip: string; ours: string };
        expect([chain, ours]).toEqual([chain, ip]);
      }
    } finally {
      await fastify.close();
    }
  });

  it.each(['x', '10.0.0.0/33', 'fd00::/129', '10.0.0.0/8/8', '10.0.0.0/', '', '10.0.0'])('%j is no proxy', (entry) => {
    expect(() => trustedProxies([entry])).toThrow(RangeError);
  });
});
