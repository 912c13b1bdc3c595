// Completes package-lock.json so that `npm ci` accepts it on every machine.
//
// Why: a package such as @swc/core names one optional package per platform. When the registry does not carry a
// platform's package at exactly that version, `npm install` leaves it out of the lock without a word, and every later
// `npm ci` stops with "EUSAGE Missing: … from lock file". A stub entry {version, os, cpu, optional} satisfies `npm ci`,
// which then skips the package because the platform does not match. Run after every change of dependencies:
// `npm run lock` (npm install + this file). Stubs carry no integrity; on the platform itself run `npm install` instead.
import fs from 'node:fs';

const lock = JSON.parse(fs.readFileSync('package-lock.json', 'utf8'));
const packages = lock.packages;

/** Looks for `name` the way Node resolves it: in the folder of `from`, then in each folder above. */
function isLocked(from, name, range) {
  const mustEqual = /^\d/.test(range);
  for (let folder = from; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/node_modules/')))) {
    const found = packages[`${folder ? `${folder}/` : ''}node_modules/${name}`];
    if (found) return !mustEqual || found.version === range;
    if (!folder) return false;
  }
}

const OS_NAMES = ['darwin', 'win32', 'freebsd', 'android', 'openharmony', 'netbsd', 'openbsd', 'sunos', 'aix', 'linux'];
const CPU_NAMES = [
  [/arm64|aarch64/, 'arm64'],
  [/x64|x86_64/, 'x64'],
  [/ia32/, 'ia32'],
  [/arm/, 'arm'],
  [/ppc64|s390x|riscv64|loong64|mips64el/, null],
];

/** The platform that a package's name speaks of; wasm and unknown ones match no machine. */
function platformOf(name) {
  const os = OS_NAMES.find((candidate) => name.includes(candidate)) ?? 'none';
  const [pattern, cpu] = CPU_NAMES.find(([candidate]) => candidate.test(name)) ?? [null, 'none'];
  return { os: [os], cpu: [cpu ?? name.match(pattern)[0]], ...(name.includes('musl') ? { libc: ['musl'] } : {}) };
}

let added = 0;
for (const [path, entry] of Object.entries(packages)) {
  for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
    if (isLocked(path, name, range)) continue;
    const top = `node_modules/${name}`;
    packages[packages[top] ? `${path}/node_modules/${name}` : top] = {
      version: range.replace(/^[^0-9]*/, '') || '0.0.0',
      ...platformOf(name),
      optional: true,
      ...(entry.dev ? { dev: true } : {}),
    };
    added += 1;
  }
}
lock.packages = Object.fromEntries(Object.entries(packages).sort(([a], [b]) => (a < b ? -1 : 1)));
fs.writeFileSync('package-lock.json', `${JSON.stringify(lock, null, 2)}\n`);
console.log(`package-lock.json: ${added} optional platform packages added`);
