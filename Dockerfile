# syntax=docker/dockerfile:1
#
# One file for every app:  docker build --build-arg APP=content-core -t atomo-content-core .
# APP is a folder of apps/ that has a src/main.ts. docs/deploy.md says how to run the images.

# Debian, not Alpine: LanceDB's native library is built for glibc.
FROM node:24-bookworm-slim AS base
WORKDIR /app

# Only the manifests, so that a change of sources leaves the two installs below cached.
FROM base AS manifests
COPY . .
RUN find . -type f ! -name package.json ! -name package-lock.json -delete && find . -type d -empty -delete

# Everything, to compile the app and the libs it refers to. No install script is needed for that.
FROM base AS build
COPY --from=manifests /app ./
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts --no-audit --no-fund
COPY . .
ARG APP
RUN test -f "apps/$APP/src/main.ts" || { echo "Say which app: --build-arg APP=content-core (a folder of apps/)"; exit 1; }
RUN node node_modules/ts7/bin/tsc -b "apps/$APP"
RUN mkdir /out \
 && cp -r --parents "apps/$APP/dist" libs/*/dist services /out/ \
 && find /out -name '*.d.ts' -o -name '*.d.ts.map' -o -name '.tsbuildinfo' | xargs rm -f \
 && ln -s "apps/$APP" /out/app

# What the app needs to run and nothing of the root: no test tools, compilers, embedded Postgres or packaged Node.
# No production package needs its install script: native ones come as prebuilt packages. LanceDB brings local models
# (320 MB) that only its own embedding functions load; Atomo embeds by itself.
FROM base AS dependencies
ARG APP
COPY --from=manifests /app ./
RUN --mount=type=cache,target=/root/.npm \
    npm ci --omit=dev --workspace "apps/$APP" --include-workspace-root=false --ignore-scripts --no-audit --no-fund \
 && rm -rf node_modules/@huggingface node_modules/onnxruntime-* node_modules/sharp node_modules/@img

FROM base
ARG APP
# LanceDB reads S3 through the system's certificates, which the slim image lacks.
# The folder is where a volume for memory is mounted; a new volume takes over its owner.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o node -g node /var/lib/atomo/memory
COPY --from=dependencies /app ./
COPY --from=build /out ./
# glibc keeps an arena per thread, and LanceDB has many: two keep a long import below a 2 GB machine's memory.
ENV NODE_ENV=production ATOMO_MODE=production HOST=0.0.0.0 MALLOC_ARENA_MAX=2 APP=$APP
USER node
EXPOSE 3000 3100 3200 3300
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["node", "-e", "\
const [name, port] = { 'content-core': ['CONTENT_CORE_PORT', 3000], 'sync-gateway': ['SYNC_GATEWAY_PORT', 3100], \
autoscaler: ['AUTOSCALER_PORT', 3200], 'historical-sync-worker': ['WORKER_PORT', 3300] }[process.env.APP]; \
fetch('http://127.0.0.1:' + (process.env[name] || port) + '/health/live') \
.then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# Exec form: Node is process 1 and gets SIGTERM itself; the services drain on it and start no children here.
CMD ["node", "app/dist/main.js"]
