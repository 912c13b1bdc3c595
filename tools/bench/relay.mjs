// A bare Socket.IO server that hands every `write` to all other sockets and acks it: what the transport alone costs.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
const server = new Server(http, { transports: ['websocket'], serveClient: false, perMessageDeflate: false });
server.on('connection', (socket) => {
  socket.on('write', (payload, ack) => {
    socket.broadcast.emit('changes', payload);
    ack({ success: true });
  });
});
http.listen(0, '127.0.0.1', () => process.send({ url: `http://127.0.0.1:${http.address().port}` }));
process.on('disconnect', () => process.exit(0));
