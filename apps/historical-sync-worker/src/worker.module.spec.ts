import { HISTORICAL_SYNC_QUEUE, QUEUES, type QueueDeclaration } from '@atomo-cc/queues';
import { ImportResources } from './import/index.js';
import { WorkerModule } from './worker.module.js';

const boot = () => WorkerModule.with({} as never, new ImportResources({} as never, {} as never, {} as never));

test('every declared queue has its handler', () => expect(boot).not.toThrow());

test('a queue without a handler stops the boot and is named', () => {
  const declared = QUEUES as QueueDeclaration[];
  declared.push({ ...HISTORICAL_SYNC_QUEUE, name: 'forgotten' });
  try {
    expect(boot).toThrow('queue forgotten has 0 handlers');
  } finally {
    declared.pop();
  }
});
