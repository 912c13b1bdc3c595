// Preloaded into a server that is measured: answers what the process has used, its garbage collected.
process.on('message', async (message) => {
  if (message !== 'usage') return;
  // What lies outside the heap is let go by finalizers, which run after a collection.
  for (let round = 0; round < 3; round += 1) {
    globalThis.gc();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const { rss, heapUsed, external } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  process.send({ usage: { rss, held: heapUsed + external, cpuMs: (user + system) / 1000 } });
});
process.on('disconnect', () => process.exit(0));
