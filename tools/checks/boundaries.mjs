// Runs dependency-cruiser with `.dependency-cruiser.cjs`: layers, cycles, front doors, declared packages.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOMS } from './tree.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const config = path.join(here, '../../.dependency-cruiser.cjs');
const cruiser = path.join(here, '../../node_modules/dependency-cruiser/bin/dependency-cruiser.mjs');

/** The report of a tree of a few thousand files stays far below this. */
const MAX_REPORT_BYTES = 256 * 1024 * 1024;

/** @type {import('./run.mjs').Check} */
export const boundaries = {
  name: 'boundaries',
  promise: 'imports follow app → feature → engine → platform → contract → util, without cycles, through front doors',
  find(tree) {
    const rooms = ROOMS.filter((room) => tree.exists(room));
    const args = [cruiser, '--config', config, '--output-type', 'json', ...rooms];
    // The config reads the packages of its working directory.
    const run = spawnSync(process.execPath, args, { cwd: tree.root, encoding: 'utf8', maxBuffer: MAX_REPORT_BYTES });
    let report;
    try {
      report = JSON.parse(run.stdout);
    } catch {
      return [`dependency-cruiser gave no report: ${(run.stderr || String(run.error ?? '')).trim().slice(0, 2000)}`];
    }
    const { violations, totalCruised } = report.summary;
    if (tree.sources.length > 0 && totalCruised < tree.sources.length / 2) {
      return [`dependency-cruiser saw ${totalCruised} modules where the tree has ${tree.sources.length} source files`];
    }
    const comments = new Map(report.summary.ruleSetUsed.forbidden.map((rule) => [rule.name, rule.comment]));
    return violations.map(({ rule, from, to, cycle }) => {
      const loop = cycle?.map((step) => step.name ?? step).join(' → ');
      return `${rule.name}: ${from} → ${loop ?? to}\n      ${comments.get(rule.name)}`;
    });
  },
  plants: [
    plant('layer-app', 'apps/content-core/src/a.ts', "import { y } from '@atomo-cc/sdk-client';"),
    plant('layer-app', 'apps/content-core/src/b.ts', "import { y } from '../../autoscaler/src/index.js';"),
    plant('layer-feature', 'libs/access/src/a.ts', "import { x } from '@atomo-cc/memory';"),
    plant('layer-feature', 'libs/access/src/type-only.ts', "import type { X } from '@atomo-cc/memory';"),
    plant('layer-engine', 'libs/event-store/src/a.ts', "import { x } from '@atomo-cc/memory';"),
    plant('layer-platform', 'libs/platform/src/postgres/a.ts', "import { x } from '@atomo-cc/event-store';"),
    plant('layer-contract', 'libs/queues/src/a.ts', "import { x } from '@atomo-cc/platform/config';"),
    plant('layer-util', 'libs/kernel/src/a.ts', "import { x } from '@atomo-cc/queues';"),
    plant('layer-sdk', 'libs/sdk-client/src/a.ts', "import { x } from '@atomo-cc/platform/config';"),
    plant('layer-testing', 'libs/testing/src/a.ts', "import { x } from '@atomo-cc/memory';"),
    plant('layer-tool', 'tools/local/src/a.ts', "import { y } from '../../../apps/autoscaler/src/index.js';"),
    plant('layer-tool', 'tools/bench/a.mjs', "import { y } from '../../apps/autoscaler/src/index.js';"),
    plant('layer-e2e', 'apps/e2e/src/a.ts', "import { x } from '@atomo-cc/platform/config';"),
    plant('layer-feature-tests', 'libs/access/src/a.spec.ts', "import { x } from '@atomo-cc/memory';"),
    plant('service-imports-schema-only', 'services/crm/a.ts', "import { x } from '@atomo-cc/kernel';"),
    plant('service-imports-schema-only', 'services/crm/b.ts', "import fs from 'node:fs';"),
    plant('untagged-package', 'libs/stray/src/index.ts', "import { x } from '@atomo-cc/kernel';"),
    plant('no-cycles', 'libs/access/src/egg.ts', "import { x } from './hen.js';", {
      'libs/access/src/hen.ts': "import { x as y } from './egg.js';\nexport const x = () => y;\n",
    }),
    plant('no-relative-import-across-packages', 'libs/access/src/b.ts', "import { x } from '../../kernel/src/ids.js';"),
    plant('no-import-past-exports', 'libs/access/src/c.ts', "import { x } from '@atomo-cc/kernel/src/ids.js';"),
    plant('not-resolvable', 'libs/access/src/d.ts', "import { x } from './gone.js';"),
    plant('feature-front-door', 'apps/content-core/src/auth/a.ts', "import { x } from '../imports/upload.js';"),
    plant('feature-front-door', 'libs/platform/src/postgres/b.ts', "import { x } from '../config/env.js';"),
    plant('no-import-of-own-index', 'apps/content-core/src/auth/b.ts', "import { x } from './index.js';", {
      'apps/content-core/src/auth/index.ts': 'export const x = 1;\n',
    }),
    plant('no-import-of-own-index', 'libs/access/src/e.ts', "import { x } from './index.js';"),
    plant('no-test-code-in-product', 'libs/access/src/f.ts', "import { x } from './testing/given.js';"),
    plant('no-test-code-in-product', 'apps/content-core/src/c.ts', "import { x } from '@atomo-cc/testing';"),
    plant('undeclared-package', 'libs/access/src/g.ts', "import pg from 'pg';"),
    plant('undeclared-package', 'libs/access/src/h.ts', "import built from 'built';"),
    plant('util-needs-no-package', 'libs/kernel/src/b.ts', "import pg from 'pg';"),
    plant('contract-knows-no-infrastructure', 'libs/queues/src/b.ts', "import type { Pool } from 'pg';"),
  ],
};

/** One planted import: `rule` must name `file`. */
function plant(rule, file, code, more = {}) {
  return { files: { [file]: `${code}\nexport const planted = 1;\n`, ...more }, expects: `${rule}: ${file}` };
}
