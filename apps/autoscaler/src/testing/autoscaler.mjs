// An autoscaler of fake workers as a process of its own, for tests that kill it. Needs the build.
import path from 'node:path';
import { runService } from '@atomo-cc/platform/lifecycle';
import { autoscalerConfig } from '../../dist/config.js';
import { autoscalerService } from '../../dist/service.js';

void runService(() => autoscalerService(autoscalerConfig(), path.join(import.meta.dirname, 'fake-worker.mjs')));
