import { GroupCommit } from './group-commit.js';

interface Command {
  readonly stream: string;
  readonly n: number;
  readonly isBad?: boolean;
  readonly isAlone?: boolean;
}

/** A commit that the test lets go on, call by call. */
function controlled(options: { maxBatch?: number; maxInFlight?: number; maxWaiting?: number } = {}) {
  const calls: { commands: readonly Command[]; succeed: () => void; fail: (error: Error) => void }[] = [];
  const log = new GroupCommit<Command, string>({
    commit: (_group, commands) =>
      new Promise((resolve, reject) => {
        calls.push({ commands, succeed: () => resolve(commands.map(({ n }) => `done ${n}`)), fail: reject });
      }),
    streamsOf: ({ stream }) => [stream],
    isRolledBack: (error) => (error as Error).message !== 'connection lost',
    isAlone: ({ isAlone }) => isAlone === true,
    ...options,
  });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  return { calls, log, turn };
}

describe('group commit', () => {
  it('answers each command only after the commit it was part of', async () => {
    const { calls, log, turn } = controlled();
    let answered = 0;
    const answers = [1, 2, 3].map((n) => log.submit('t', { stream: `s${n}`, n }).finally(() => (answered += 1)));
    await turn();
    expect(calls.map((call) => call.commands.length)).toEqual([3]);
    expect(answered).toBe(0);
    calls[0]!.succeed();
    expect(await Promise.all(answers)).toEqual(['done 1', 'done 2', 'done 3']);
  });

  it('gives a command that stands alone a transaction of its own, in its turn', async () => {
    const { calls, log, turn } = controlled({ maxInFlight: 1 });
    for (const n of [1, 2, 3, 4, 5]) void log.submit('t', { stream: `s${n}`, n, isAlone: n === 2 || n === 3 });
    for (let call = 0; call < 3; call += 1) {
      await turn();
      calls[call]!.succeed();
    }
    await turn();
    // What shares no stream with it may go ahead of it; nothing that was there when it became the first does.
    expect(calls.map(({ commands }) => commands.map(({ n }) => n))).toEqual([[1, 4, 5], [2], [3]]);
  });

  it('keeps two transactions under way, and gathers what arrives meanwhile', async () => {
    const { calls, log, turn } = controlled();
    for (const n of [1, 2]) {
      void log.submit('t', { stream: `s${n}`, n });
      await turn();
    }
    for (let n = 3; n < 60; n += 1) void log.submit('t', { stream: `s${n}`, n });
    await turn();
    expect(calls.length).toBe(2);
    calls[0]!.succeed();
    await turn();
    expect(calls.map((call) => call.commands.length)).toEqual([1, 1, 57]);
  });

  it('never has two transactions with the same stream under way, and keeps its order', async () => {
    const { calls, log, turn } = controlled();
    void log.submit('t', { stream: 'hot', n: 1 });
    await turn();
    void log.submit('t', { stream: 'hot', n: 2 });
    void log.submit('t', { stream: 'cold', n: 3 });
    void log.submit('t', { stream: 'hot', n: 4 });
    await turn();
    expect(calls.map((call) => call.commands.map(({ n }) => n))).toEqual([[1], [3]]);
    calls[0]!.succeed();
    await turn();
    expect(calls[2]!.commands.map(({ n }) => n)).toEqual([2, 4]);
  });

  it('holds back a command behind one that waits for another of its streams', async () => {
    const begun: number[][] = [];
    const ends: (() => void)[] = [];
    const log = new GroupCommit<{ streams: string[]; n: number }, number>({
      commit: (_group, commands) => {
        begun.push(commands.map(({ n }) => n));
        return new Promise((resolve) => ends.push(() => resolve(commands.map(({ n }) => n))));
      },
      streamsOf: ({ streams }) => streams,
      isRolledBack: () => true,
    });
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    void log.submit('t', { streams: ['a'], n: 1 });
    await turn();
    void log.submit('t', { streams: ['a', 'b'], n: 2 });
    void log.submit('t', { streams: ['b'], n: 3 });
    await turn();
    // The third could go by its stream, but would overtake the second.
    expect(begun).toEqual([[1]]);
    ends[0]!();
    await turn();
    expect(begun).toEqual([[1], [2, 3]]);
    ends[1]!();
  });

  it('does not let tenants share a transaction', async () => {
    const { calls, log, turn } = controlled();
    void log.submit('one', { stream: 's', n: 1 });
    void log.submit('two', { stream: 's', n: 2 });
    await turn();
    expect(calls.map((call) => call.commands.length)).toEqual([1, 1]);
  });

  it('after a rolled-back transaction fails only the command at fault', async () => {
    let commits = 0;
    const log = new GroupCommit<Command, string>({
      commit: async (_group, commands) => {
        commits += 1;
        await Promise.resolve();
        if (commands.some(({ isBad }) => isBad)) throw new Error('refused by the database');
        return commands.map(({ n }) => `done ${n}`);
      },
      streamsOf: ({ stream }) => [stream],
      isRolledBack: () => true,
    });
    const answers = await Promise.allSettled(
      Array.from({ length: 64 }, (_, n) => log.submit('t', { stream: `s${n}`, n, isBad: n === 41 })),
    );
    expect(answers.filter(({ status }) => status === 'rejected').length).toBe(1);
    expect(answers[41]).toMatchObject({ status: 'rejected' });
    expect(answers[40]).toEqual({ status: 'fulfilled', value: 'done 40' });
    // Halving finds it: 64, 32, 16, 8, 4, 2, 1 and the good half beside each.
    expect(commits).toBe(13);
  });

  it('tries nothing again when nobody knows whether the commit happened', async () => {
    const { calls, log, turn } = controlled();
    const answers = Promise.allSettled([1, 2].map((n) => log.submit('t', { stream: `s${n}`, n })));
    await turn();
    calls[0]!.fail(new Error('connection lost'));
    expect((await answers).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(calls.length).toBe(1);
  });

  it('refuses at once when too many wait, and takes commands again later', async () => {
    const { calls, log, turn } = controlled({ maxWaiting: 3, maxInFlight: 1 });
    void log.submit('t', { stream: 'a', n: 0 });
    await turn();
    for (const n of [1, 2, 3]) void log.submit('t', { stream: `s${n}`, n });
    await expect(log.submit('t', { stream: 'b', n: 4 })).rejects.toMatchObject({ code: 'WRITES_OVERLOADED' });
    calls[0]!.succeed();
    await turn();
    const later = log.submit('t', { stream: 'b', n: 5 });
    calls[1]!.succeed();
    await turn();
    calls[2]!.succeed();
    expect(await later).toBe('done 5');
    expect(log.waiting).toBe(0);
  });

  it('loses, doubles and reorders nothing whatever fails (seeded)', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    process.stdout.write(`group commit, seed ${seed}\n`);
    let state = seed;
    const random = () => (state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff) / 0x7fffffff;
    const committed: Command[] = [];
    const log = new GroupCommit<Command, number>({
      commit: async (_group, commands) => {
        for (let turns = Math.floor(random() * 4); turns > 0; turns -= 1)
          await new Promise((resolve) => setImmediate(resolve));
        if (commands.some(({ isBad }) => isBad)) throw new Error('refused by the database');
        committed.push(...commands);
        return commands.map(({ n }) => n);
      },
      streamsOf: ({ stream }) => [stream],
      isRolledBack: () => true,
      maxBatch: 16,
    });
    const commands = Array.from({ length: 2_000 }, (_, n) => ({
      stream: `s${Math.floor(random() * 30)}`,
      n,
      isBad: random() < 0.02,
    }));
    const answers: Promise<unknown>[] = [];
    for (const command of commands) {
      answers.push(log.submit('t', command).catch(() => 'refused'));
      if (random() < 0.1) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await Promise.all(answers)).toEqual(commands.map(({ n, isBad }) => (isBad ? 'refused' : n)));
    expect(new Set(committed).size).toBe(committed.length);
    for (const stream of new Set(commands.map((command) => command.stream))) {
      const order = committed.filter((command) => command.stream === stream).map(({ n }) => n);
      expect(order).toEqual([...order].sort((a, b) => a - b));
    }
  });
});
