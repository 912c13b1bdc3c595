export { AckFaults } from './ack-faults.js';
export { errorBody } from './fault.js';
export { restFault, RestFaults } from './rest-faults.js';
