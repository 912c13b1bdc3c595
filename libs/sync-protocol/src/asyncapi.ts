import { CLIENT_MESSAGES, type ClientEvent, handshakeShape, SERVER_MESSAGES, type ServerEvent } from './events.js';
import { type JsonSchema, partsOf, type Shape } from './shape.js';

const PROTOCOLS = [1, 2] as const;

/**
 * The socket events of both protocols as AsyncAPI 3: what a client may send (`receive`, whose reply is the ack) and what the
 * gateway sends by itself (`send`). An event has one argument, its payload, and an ack has one.
 */
export function asyncApi(): JsonSchema {
  const shapes: Shape<unknown>[] = [handshakeShape];
  for (const { payload, ack } of CLIENT_MESSAGES) shapes.push(...(payload ? [payload, ack] : [ack]));
  for (const { payload } of SERVER_MESSAGES) shapes.push(payload);
  return {
    asyncapi: '3.0.0',
    info: {
      title: 'Atomo sync gateway',
      version: '2',
      license: { name: 'MIT' },
      description:
        'Socket.IO 4 at /socket.io, websocket only. A handshake is refused with one of UNAUTHORIZED, INVALID_KEY, ' +
        'VALIDATION_ERROR, UNSUPPORTED_PROTOCOL and RATE_LIMITED in connect_error.message. REST is told in openapi.json beside this.',
    },
    defaultContentType: 'application/json',
    servers: {
      gateway: {
        host: '{host}',
        protocol: 'ws',
        variables: { host: { default: 'localhost:3100', description: 'Where the gateway is.' } },
      },
    },
    channels: Object.fromEntries(PROTOCOLS.map((protocol) => [channelOf(protocol), channel(protocol)])),
    operations: Object.fromEntries([...CLIENT_MESSAGES.map(received), ...SERVER_MESSAGES.map(sent)]),
    components: { schemas: Object.fromEntries(partsOf(shapes)) },
  };
}

function channelOf(protocol: 1 | 2): string {
  return `protocol${protocol}`;
}

function channel(protocol: 1 | 2): JsonSchema {
  const messages: [string, JsonSchema][] = [];
  for (const told of CLIENT_MESSAGES.filter((each) => each.protocol === protocol)) {
    const { event, summary, payload, ack } = told;
    messages.push([idOf(event), { name: event, summary, payload: payload?.schema ?? {} }]);
    messages.push([ackIdOf(event), { name: `ack of ${event}`, payload: ack.schema }]);
  }
  for (const { event, summary, payload } of SERVER_MESSAGES.filter((each) => each.protocol === protocol)) {
    messages.push([idOf(event), { name: event, summary, payload: payload.schema }]);
  }
  return {
    address: '/socket.io/',
    description:
      protocol === 1
        ? 'The handshake carries the key as query.apiKey or auth.apiKey.'
        : 'The handshake carries auth: the key as apiKey, and what x-handshake tells.',
    ...(protocol === 2 && { 'x-handshake': handshakeShape.schema }),
    messages: Object.fromEntries(messages),
  };
}

function received({ event, protocol, needs, isOfWholeStore, summary }: ClientEvent): [string, JsonSchema] {
  return [
    `receive-${idOf(event)}`,
    {
      action: 'receive',
      channel: channelReference(protocol),
      summary,
      description: `The key needs the permission ${needs}${isOfWholeStore ? ', and the whole store' : ''}.`,
      messages: [messageReference(protocol, idOf(event))],
      reply: { channel: channelReference(protocol), messages: [messageReference(protocol, ackIdOf(event))] },
    },
  ];
}

function sent({ event, protocol, summary, isForAll }: ServerEvent): [string, JsonSchema] {
  return [
    `send-${idOf(event)}`,
    {
      action: 'send',
      channel: channelReference(protocol),
      summary,
      description: isForAll ? 'Every key gets it.' : 'Keys that may read get it.',
      messages: [messageReference(protocol, idOf(event))],
    },
  ];
}

function channelReference(protocol: 1 | 2): JsonSchema {
  return { $ref: `#/channels/${channelOf(protocol)}` };
}

function messageReference(protocol: 1 | 2, id: string): JsonSchema {
  return { $ref: `#/channels/${channelOf(protocol)}/messages/${id}` };
}

/** A key of the document: letters, digits, dots, hyphens and underscores. */
function idOf(event: string): string {
  return event.replaceAll(':', '.');
}

function ackIdOf(event: string): string {
  return `${idOf(event)}.ack`;
}
