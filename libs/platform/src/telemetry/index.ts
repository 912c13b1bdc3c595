export { Metrics } from './metrics.js';
export type { Counter, Gauge, Histogram } from './metrics.js';
export { traceRequests } from './requests.js';
export {
  currentTraceparent,
  isTracing,
  MAX_TRACES_PER_BATCH,
  openSpan,
  recordSpan,
  recordSpans,
  spanTime,
  startTracing,
  traceIds,
  withoutSpan,
  withSpan,
} from './tracing.js';
export type {
  OpenSpan,
  ReadableSpan,
  SpanAttributes,
  SpanExporter,
  SpanOptions,
  Tracing,
  TracingOptions,
} from './tracing.js';
