export { Clients, pendingBytes } from './clients.js';
export type { ClientServer, ClientSocket } from './clients.js';
export { Relay } from './relay.js';
export { SocketServer } from './socket-server.js';
export { SocketsModule } from './sockets.module.js';
