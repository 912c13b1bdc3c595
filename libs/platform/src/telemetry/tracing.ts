import {
  context,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  type Context,
  type Span,
  type SpanContext,
  type Tracer,
} from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { ExportResultCode, parseTraceParent, type ExportResult } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { resourceFromAttributes } from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  SimpleSpanProcessor,
  TraceIdRatioBasedSampler,
  TracerProvider,
  type ReadableSpan,
  type SpanExporter,
} from '@opentelemetry/sdk-trace';
import { isCodedError } from '@atomo-cc/kernel';

export type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace';

/** Spans that wait for the collector: some 16 MB at most. What comes beyond is dropped, because requests go before traces. */
const MAX_WAITING_SPANS = 16_384;
/** The longest one batch of spans is offered to the collector, repeats included. */
const EXPORT_TIMEOUT_MS = 10_000;
/** The longest a stop waits for the last spans to be taken: a collector that is away must not hold up a deployment. */
const FLUSH_MS = 3_000;
/** Characters of an attribute: codes and names are shorter, and nothing else belongs into one. */
const MAX_ATTRIBUTE_CHARACTERS = 256;
/** Traces that get a span from one batch of work: who reads traces wants examples of a batch, not all five thousand of it. */
export const MAX_TRACES_PER_BATCH = 100;
/** Spans that the span of a trace in a batch refers to besides its parent: other commands of the same request. */
const MAX_LINKS = 16;
/** A monotonic clock that is further than this from the wall clock was left behind by a sleep or a correction. */
const MAX_DRIFT_MS = 20;

/** What a span says of itself: names, kinds and numbers, never what someone wrote and never who someone is. */
export type SpanAttributes = Readonly<Record<string, string | number | boolean>>;

/** How tracing is started. */
export interface TracingOptions {
  readonly service: string;
  /** The collector's OTLP/HTTP address, to which `/v1/traces` is added. Empty or absent: nothing is recorded. */
  readonly endpoint?: string;
  /** Sent with every export: a collector's key, for instance. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The share, 0 to 1, of the traces that begin here. A trace that began elsewhere is recorded if its caller records it. */
  readonly ratio?: number;
  /** Takes each span as it ends, instead of the endpoint; for tests. */
  readonly exporter?: SpanExporter;
  /** Told once when the collector stops taking spans, and (null) once it takes them again. */
  readonly onExport?: (error: Error | null) => void;
}

/** Tracing that was started. */
export interface Tracing {
  /** Hands over what is recorded, for a few seconds at most, and records nothing from then on. Never rejects. */
  stop(): Promise<void>;
}

let tracer: Tracer | null = null;

/**
 * Begins to record spans, in the whole process; without an endpoint it does nothing, and everything here costs one comparison.
 * Spans are handed over behind the requests' backs: a collector that is slow or away costs spans, never a request.
 * @throws Error when it was started before and not stopped
 */
export function startTracing(options: TracingOptions): Tracing {
  const { service, endpoint, exporter, ratio = 1 } = options;
  if (!endpoint && !exporter) return { stop: () => Promise.resolve() };
  if (tracer) throw new Error('tracing was started already');
  const provider = new TracerProvider({
    resource: resourceFromAttributes({ 'service.name': service, 'process.pid': process.pid }),
    // Parent's decision first: a trace is recorded whole or not at all.
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }),
    spanLimits: { attributeValueLengthLimit: MAX_ATTRIBUTE_CHARACTERS },
    spanProcessors: [
      exporter
        ? new SimpleSpanProcessor({ exporter })
        : new BatchSpanProcessor({
            exporter: reporting(
              new OTLPTraceExporter({
                url: `${endpoint!.replace(/\/+$/, '')}/v1/traces`,
                headers: { ...options.headers },
                timeoutMillis: EXPORT_TIMEOUT_MS,
              }),
              options.onExport ?? (() => undefined),
            ),
            maxQueueSize: MAX_WAITING_SPANS,
            exportTimeoutMillis: EXPORT_TIMEOUT_MS,
          }),
    ],
  });
  const contexts = new AsyncLocalStorageContextManager().enable();
  context.setGlobalContextManager(contexts);
  trace.setGlobalTracerProvider(provider);
  tracer = provider.getTracer('atomo');
  let stopped: Promise<void> | undefined;
  const stop = async () => {
    tracer = null;
    trace.disable();
    context.disable();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, FLUSH_MS);
    });
    await Promise.race([provider.shutdown().catch(() => undefined), late]);
    clearTimeout(timer);
  };
  return { stop: () => (stopped ??= stop()) };
}

/** Tells when exports begin to fail and when they pass again, instead of each of them. */
function reporting(exporter: SpanExporter, tell: (error: Error | null) => void): SpanExporter {
  let isFailing = false;
  return {
    export: (spans: ReadableSpan[], done: (result: ExportResult) => void) =>
      exporter.export(spans, (result) => {
        const failed = result.code !== ExportResultCode.SUCCESS;
        if (failed !== isFailing) {
          isFailing = failed;
          tell(failed ? (result.error ?? new Error('the collector did not take the spans')) : null);
        }
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}

/** Whether spans are recorded at all: asked before work that only tracing needs. */
export function isTracing(): boolean {
  return tracer !== null;
}

/** What a span is besides its name. */
export interface SpanOptions {
  /** The `traceparent` it continues (W3C Trace Context). A malformed one is as none. */
  readonly parent?: string | undefined;
  readonly attributes?: SpanAttributes;
  /** `server` for what a caller outside waits for. */
  readonly kind?: 'server' | 'internal' | 'consumer';
  /** `spanTime()` of the moment it began; now unless given. */
  readonly startTime?: number;
  /** The `traceparent` of spans that it has to do with besides its parent. */
  readonly links?: readonly string[];
}

/**
 * Does the work within a span, which is the parent of all spans inside. Its own parent is the span around it, else `parent`,
 * else none: then it begins a trace. What the work throws or rejects with is passed on, and its code is the span's status.
 * @param errorOf what went wrong by a result that says so itself; undefined when nothing did
 */
export function withSpan<Result>(
  name: string,
  options: SpanOptions,
  work: () => Result,
  errorOf: (result: Awaited<Result>) => unknown = () => undefined,
): Result {
  if (!tracer) return work();
  const around = context.active();
  const open = opened(name, options, trace.getSpan(around) ? around : (contextOf(options.parent) ?? around));
  try {
    const result = context.with(open.context, work);
    if (!(result instanceof Promise)) {
      open.end({ error: errorOf(result as Awaited<Result>) });
      return result;
    }
    return result.then(
      (value: Awaited<Result>) => {
        open.end({ error: errorOf(value) });
        return value;
      },
      (error: unknown) => {
        open.end({ error });
        throw error;
      },
    ) as Result;
  } catch (error) {
    open.end({ error });
    throw error;
  }
}

/** A span that someone else ends. */
export interface OpenSpan {
  /** For what follows from it; absent when it is not recorded. */
  readonly traceparent: string | undefined;
  /** Ends it, now unless `time` (a `spanTime()`) says when; with the error that it ended with. Once only. */
  end(how?: { time?: number; error?: unknown; attributes?: SpanAttributes }): void;
}

/**
 * Begins a span that continues the recorded trace of `parent`; null where there is none. For work that is done for many at
 * once and of which each wants its own span, whatever the calling function is itself part of.
 */
export function openSpan(name: string, options: SpanOptions): OpenSpan | null {
  if (!tracer) return null;
  const parent = contextOf(options.parent);
  return parent && isSampled(trace.getSpanContext(parent)) ? opened(name, options, parent) : null;
}

/** A span of work that is over: see `openSpan`. Answers its `traceparent`. */
export function recordSpan(
  name: string,
  options: SpanOptions & { readonly endTime?: number; readonly error?: unknown },
): string | undefined {
  const span = openSpan(name, options);
  span?.end({ error: options.error, ...(options.endTime !== undefined && { time: options.endTime }) });
  return span?.traceparent;
}

/**
 * Spans of work that was done for many traces at once: one for each different trace of `parents`, continuing the first that
 * names it and linked to the others, up to MAX_TRACES_PER_BATCH. `batch.parents` says for how many of `parents` it stands.
 */
export function recordSpans(
  name: string,
  parents: Iterable<string | undefined>,
  options: Omit<SpanOptions, 'parent' | 'links'> & { readonly endTime?: number },
): void {
  if (!tracer) return;
  const traces = new Map<string, { parents: Set<string>; count: number }>();
  for (const parent of parents) {
    if (parent === undefined) continue;
    // The trace id's place in a traceparent is fixed.
    const id = parent.slice(3, 35);
    const known = traces.get(id);
    if (known) {
      known.count += 1;
      if (known.parents.size <= MAX_LINKS) known.parents.add(parent);
    } else if (traces.size < MAX_TRACES_PER_BATCH) traces.set(id, { parents: new Set([parent]), count: 1 });
  }
  for (const { parents: all, count } of traces.values()) {
    const [parent, ...links] = all;
    recordSpan(name, { ...options, parent, links, attributes: { ...options.attributes, 'batch.parents': count } });
  }
}

/** The `traceparent` of the span around; absent when there is none, or it is not recorded. */
export function currentTraceparent(): string | undefined {
  return tracer ? traceparentOf(trace.getSpanContext(context.active())) : undefined;
}

/** Does work that belongs to no single request, so that it does not run under the span of whoever set it off. */
export function withoutSpan<Result>(work: () => Result): Result {
  return tracer ? context.with(ROOT_CONTEXT, work) : work();
}

/** The ids by which a line of the log is found from a trace, and a trace from a line; empty outside a span. */
export function traceIds(): { traceId?: string; spanId?: string } {
  const span = tracer ? trace.getSpanContext(context.active()) : undefined;
  return span ? { traceId: span.traceId, spanId: span.spanId } : {};
}

let clockOffset = Date.now() - performance.now();

/** Milliseconds since 1970 with a fraction: spans of a batch are often shorter than one. Follows the wall clock. */
export function spanTime(): number {
  const time = performance.now() + clockOffset;
  const drift = Date.now() - time;
  if (Math.abs(drift) > MAX_DRIFT_MS) clockOffset += drift;
  return performance.now() + clockOffset;
}

const KINDS = { server: SpanKind.SERVER, internal: SpanKind.INTERNAL, consumer: SpanKind.CONSUMER } as const;

/** A span that is begun, with the context in which its children begin. */
export interface ScopedSpan extends OpenSpan {
  readonly context: Context;
  /** The name by its route, for instance, is known late. */
  rename(name: string): void;
}

/** For the parts of telemetry: begins a span under `parent`. */
export function opened(name: string, options: SpanOptions, parent: Context): ScopedSpan {
  const { kind = 'internal', attributes, startTime = spanTime(), links = [] } = options;
  const span = tracer!.startSpan(
    name,
    {
      kind: KINDS[kind],
      startTime,
      ...(attributes && { attributes }),
      links: links.flatMap((link) => {
        const linked = parseTraceParent(link);
        return linked ? [{ context: linked }] : [];
      }),
    },
    parent,
  );
  return {
    context: trace.setSpan(parent, span),
    traceparent: traceparentOf(span.spanContext()),
    rename: (to) => void span.updateName(to),
    end: ({ time, error, attributes: more } = {}) => {
      if (!span.isRecording()) return;
      if (more) span.setAttributes(more);
      if (error !== undefined) setFault(span, error);
      span.end(time ?? spanTime());
    },
  };
}

/** The code alone: messages, stacks and details may hold what someone wrote. */
function setFault(span: Span, error: unknown): void {
  const code = isCodedError(error) ? error.code : 'INTERNAL_ERROR';
  span.setStatus({ code: SpanStatusCode.ERROR, message: code }).setAttribute('error.type', code);
}

/** For the parts of telemetry: the context of a caller outside, if it gave a proper one. */
export function contextOf(traceparent: string | undefined): Context | undefined {
  const remote = traceparent === undefined ? null : parseTraceParent(traceparent);
  return remote ? trace.setSpanContext(ROOT_CONTEXT, { ...remote, isRemote: true }) : undefined;
}

const isSampled = (span: SpanContext | undefined): boolean => span !== undefined && (span.traceFlags & 1) === 1;

function traceparentOf(span: SpanContext | undefined): string | undefined {
  return isSampled(span) ? `00-${span!.traceId}-${span!.spanId}-01` : undefined;
}
