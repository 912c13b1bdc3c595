import {
  blobVariables,
  loadConfig,
  memoryVariables,
  requireReachableMemory,
  servicePort,
  serviceVariables,
  str,
} from '@atomo-cc/platform/config';

const variables = {
  ...serviceVariables,
  ...memoryVariables,
  ...blobVariables,
  WORKER_PORT: servicePort({ default: 3300, desc: "The port of a worker's health and metrics." }),
  FLY_MACHINE_ID: str({ default: '', desc: 'Set by Fly: the id of the machine the worker runs on.' }),
};

/** The settings of a worker. @throws CodedError CONFIG_INVALID */
export function workerConfig(environment?: Readonly<Record<string, string | undefined>>) {
  const config = loadConfig(variables, environment);
  return { ...config, MEMORY_URI: requireReachableMemory(config) };
}
