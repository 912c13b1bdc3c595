export { AckFaults } from './ack-faults.js';
export { errorBody } from './fault.js';
export { RestFaults } from './rest-faults.js';
