// The load, in a process of its own: reads what to do from standard input as JSON, prints what came of it.
import { text } from 'node:stream/consumers';
import autocannon from 'autocannon';

const { verify, ...options } = JSON.parse(await text(process.stdin));
// GraphQL answers some faults with 200.
const result = await autocannon({ ...options, ...(verify && { verifyBody: (body) => !body.includes('"errors"') }) });
console.log(
  JSON.stringify({
    rate: result['2xx'] / result.duration,
    answered: result['2xx'],
    p50: result.latency.p50,
    p99: result.latency.p99,
    faults: result.errors + result.timeouts + result.non2xx + result.mismatches,
  }),
);
