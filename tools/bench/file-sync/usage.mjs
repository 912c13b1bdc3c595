// Preloaded into a server that is measured: answers what the process has used, its garbage collected.
process.on('message', (message) => {
  if (message !== 'usage') return;
  globalThis.gc();
  const { rss, heapUsed, external } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  process.send({ usage: { rss, held: heapUsed + external, cpuMs: (user + system) / 1000 } });
});
process.on('disconnect', () => process.exit(0));
