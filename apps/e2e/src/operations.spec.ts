import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from './clients.js';
import { runCommand } from './system.js';
import { theHome, theSystem } from './the-system.js';

const isReady = async (url: string): Promise<boolean> => (await fetch(`${url}/health/ready`)).status === 200;

describe('operations', () => {
  it('every service and worker answers live, ready and metrics', async () => {
    const { services, workers } = theSystem();
    expect(Object.keys(services).sort()).toEqual(['autoscaler', 'content-core', 'sync-gateway']);
    expect(workers.length).toBeGreaterThanOrEqual(1);
    for (const { url } of [...Object.values(services), ...workers]) {
      expect((await fetch(`${url}/health/live`)).status).toBe(200);
      const ready = (await (await fetch(`${url}/health/ready`)).json()) as {
        dependencies: Record<string, { state: string }>;
      };
      expect(Object.values(ready.dependencies).map((each) => each.state)).not.toContain('down');
      expect(ready.dependencies).toHaveProperty('postgres');
      expect(await (await fetch(`${url}/metrics`)).text()).toContain('process_resident_memory_bytes');
    }
  });

  it('the autoscaler shows queues, workers and its decisions', async () => {
    const { url } = theSystem().services.autoscaler;
    const [queues, workers, decisions] = await Promise.all(
      ['queues', 'workers', 'decisions'].map(async (path) => (await fetch(`${url}/${path}`)).json()),
    );
    expect(JSON.stringify(queues)).toContain('historical-sync');
    expect(JSON.stringify(workers)).toContain(theSystem().workers[0]!.url);
    expect(decisions).toBeDefined();
  });

  it('commands that need the schema find the one that was started', () => {
    const { folder } = JSON.parse(readFileSync(join(theHome(), 'service.json'), 'utf8')) as { folder: string };
    expect(folder).toMatch(/\/services\/crm$/);
  });

  it('a second start in the same home is refused', async () => {
    const { code, output } = await runCommand('npm', ['start'], { ...process.env, ATOMO_HOME: theHome() });
    expect(code).toBe(1);
    expect(output).toContain('already running');
  });

  it('a worker that is killed is replaced', async () => {
    const killed = theSystem().workers[0]!;
    process.kill(killed.pid, 'SIGKILL');
    const replaced = await eventually(
      'another worker is ready',
      async () => {
        const [worker] = theSystem().workers.filter((each) => each.pid !== killed.pid);
        return worker && (await isReady(worker.url)) && worker;
      },
      45_000,
    );
    expect(replaced.pid).not.toBe(killed.pid);
  });

  it.each(['content-core', 'sync-gateway', 'autoscaler'] as const)('%s is back when it is killed', async (name) => {
    const killed = theSystem().services[name];
    const workers = theSystem().workers.map((each) => each.pid);
    process.kill(killed.pid, 'SIGKILL');
    await eventually(
      `${name} is back`,
      async () => {
        const now = theSystem().services[name];
        return now.pid !== killed.pid && (await isReady(now.url));
      },
      45_000,
    );
    // The workers are not the dead one's children: they went on.
    expect(theSystem().workers.map((each) => each.pid)).toEqual(workers);
  });
});
