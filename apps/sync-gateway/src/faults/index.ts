export { AckFaults } from './ack-faults.js';
export { RestFaults } from './rest-faults.js';
