import fc from 'fast-check';
import {
  converges,
  type ModelWorld,
  PlainRules,
  SERIES,
  SERIES_LIMIT_MS,
  type StoreOp,
  type Verdict,
  WORLDS,
} from '@atomo-cc/sdk-sync/testing';
import { aSeed } from '@atomo-cc/testing';
import { WorkspaceRules } from './testing/workspace-rules.js';

describe('devices whose store decides as this gateway does', () => {
  it(
    `end with the same files and every token that was typed (${SERIES})`,
    async () => {
      const holdsItsDigest = ({ store }: ModelWorld) =>
        (store.rules as WorkspaceRules).digest === store.digest().digest ? [] : ['the digest is not that of the files'];
      expect(await converges(() => new WorkspaceRules(), holdsItsDigest)).toMatchObject({ worlds: WORLDS });
    },
    SERIES_LIMIT_MS,
  );
});

describe('the decisions of this gateway', () => {
  it('are those of the model that clients are tested against', () => {
    const path = fc.constantFrom('a.md', 'A.md', 'x/b.md', 'X/b.md', 'x/y/c.md', 'z/b.md', 'e\u0301.md', 'é.md');
    const folder = fc.constantFrom('x', 'X', 'z', 'x/y', 'w');
    const hash = fc.nat(2).map((digit) => `sha256:${String(digit).repeat(64)}`);
    const baseHash = fc.option(hash, { nil: null, freq: 3 });
    const put = fc.record({ op: fc.constant('put' as const), path, hash, size: fc.constant(1), baseHash });
    const wanted: fc.Arbitrary<Omit<StoreOp, 'opId'>> = fc.oneof(
      put,
      fc.record({ op: fc.constant('put' as const), path, hash, size: fc.constant(1) }),
      fc.record({ op: fc.constant('delete' as const), path, baseHash }),
      fc.record({ op: fc.constant('rename' as const), path, newPath: path, baseHash }),
      fc.record({ op: fc.constant('rename' as const), path, newPath: path }),
      fc.record({
        op: fc.constantFrom('delete-folder' as const, 'rename-folder' as const),
        path: folder,
        newPath: folder,
      }),
    );
    fc.assert(
      fc.property(fc.array(wanted, { maxLength: 40, size: 'max' }), (ops) => {
        const sides = [new WorkspaceRules(), new PlainRules()];
        const names = sides.map(() => new Map<string, number>());
        let head = 0;
        for (const op of ops) {
          const [ours, model] = sides.map((side, n) => named(side.decide({ opId: 'o', ...op }, head), names[n]!));
          expect([op, ours]).toEqual([op, model]);
          head += ours!.changes?.length ?? 0;
        }
      }),
      { seed: aSeed('decisions'), numRuns: 300 },
    );
  });
});

/** A verdict in which files are called by the order in which they were first heard of. */
function named(verdict: Verdict, names: Map<string, number>) {
  if ('fault' in verdict) return { fault: verdict.fault.code };
  const nameOf = (id: string | undefined) => {
    if (id === undefined) return undefined;
    if (!names.has(id)) names.set(id, names.size);
    return names.get(id);
  };
  const changes = verdict.changes.map((change) =>
    change.op === 'delete' ? change : { ...change, fileId: nameOf(change.fileId) },
  );
  return { changes };
}
