export { HandshakeModule } from './handshake.module.js';
export { Handshakes } from './handshakes.js';
