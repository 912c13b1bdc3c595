export { Relay } from './relay.js';
export { LONG_CHANGE, Rooms } from './rooms.js';
export type { ClientServer, ClientSocket, LongChange } from './rooms.js';
export { SocketServer } from './socket-server.js';
export { SocketsModule } from './sockets.module.js';
