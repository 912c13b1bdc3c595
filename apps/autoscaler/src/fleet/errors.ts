/** Why workers could not be started or stopped: a closed set, into which each provider translates its own failures. */
export const FLEET_ERRORS = {
  FLEET_UNAVAILABLE: 'The provider of workers does not answer, or is overloaded. The autoscaler tries again by itself.',
  FLEET_NOT_PERMITTED:
    'The provider of workers refuses the token. Give the autoscaler a token that may manage the app.',
  FLEET_MISCONFIGURED: 'The provider of workers refuses the request as wrong; the message says what it found.',
  FLEET_NO_TEMPLATE:
    'The provider has no worker to copy. Deploy the worker once, then the autoscaler can make more of it.',
  FLEET_BUSY: 'Someone else is changing this worker at this moment. The autoscaler tries again by itself.',
  FLEET_WORKER_GONE: 'The worker is no longer there, or is not one that the autoscaler may touch.',
  FLEET_START_FAILED:
    'A worker ended before it was ready; its log says why. The autoscaler tries again, each time later.',
} as const;

/** A code of FLEET_ERRORS. */
export type FleetErrorCode = keyof typeof FLEET_ERRORS;
