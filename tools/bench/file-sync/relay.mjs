// A bare Socket.IO server that hands every `write` to all other sockets and acks it: what the transport alone costs. It keeps
// nothing, checks nothing and knows nobody.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
const server = new Server(http, {
  transports: ['websocket'],
  serveClient: false,
  perMessageDeflate: false,
  maxHttpBufferSize: 32 * 1024 * 1024,
});
server.on('connection', (socket) => {
  socket.on('write', (payload, ack) => {
    socket.broadcast.emit('changes', payload);
    ack({ success: true });
  });
});
http.listen(0, '127.0.0.1', () => process.send({ url: `http://127.0.0.1:${http.address().port}` }));
