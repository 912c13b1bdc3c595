import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Refusal, reasonOf } from './refusal.js';

/** Longest path of a unix socket that Linux (108) and macOS (104) both take, with the closing zero byte. */
const SOCKET_PATH_LIMIT = 103;

/** The folder ATOMO_HOME with what was decided once for it. */
export interface Home {
  readonly folder: string;
  readonly logs: string;
  /** The supervisor's socket: in the home, or under the temporary folder where the home's path is too long for one. */
  readonly socket: string;
  readonly secrets: Secrets;
}

/** Random, made at the first start, kept in `secrets.json` (0600). */
export interface Secrets {
  readonly postgresPassword: string;
  readonly redisPassword: string;
  readonly authSecret: string;
  /** Personal data cannot be read without it, so who restores a backup of the database needs it as well. */
  readonly encryptionKey: string;
}

/** What is kept of the last start, for commands that need the schema and are not told where it is. */
export const SERVICE_FILE = 'service.json';

/** The content of SERVICE_FILE. */
export interface StartedService {
  /** The folder of schema.ts, absolute. */
  readonly folder: string;
}

/**
 * Opens ATOMO_HOME, and makes it at the first start.
 * @throws Refusal when the folder cannot be written
 */
export function openHome(wanted: string): Home {
  try {
    fs.mkdirSync(path.join(wanted, 'logs'), { recursive: true });
    const folder = fs.realpathSync(wanted);
    return { folder, logs: path.join(folder, 'logs'), socket: socketPath(folder), secrets: openSecrets(folder) };
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(`ATOMO_HOME ${wanted} cannot be used: ${reasonOf(error)}.`);
  }
}

function socketPath(folder: string): string {
  const inside = path.join(folder, 'supervisor.sock');
  if (Buffer.byteLength(inside) < SOCKET_PATH_LIMIT) return inside;
  const name = crypto.createHash('sha256').update(folder).digest('hex').slice(0, 16);
  const outside = path.join(os.tmpdir(), `atomo-${name}.sock`);
  return Buffer.byteLength(outside) < SOCKET_PATH_LIMIT ? outside : `/tmp/atomo-${name}.sock`;
}

function openSecrets(folder: string): Secrets {
  const file = path.join(folder, 'secrets.json');
  let kept: Partial<Secrets> = {};
  try {
    kept = JSON.parse(fs.readFileSync(file, 'utf8')) as Partial<Secrets>;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new Refusal(
        `${file} cannot be read (${reasonOf(error)}); restore it, or start anew with npm start -- --reset.`,
      );
    }
  }
  const random = () => crypto.randomBytes(24).toString('base64url');
  const secrets: Secrets = {
    postgresPassword: kept.postgresPassword ?? random(),
    redisPassword: kept.redisPassword ?? random(),
    authSecret: kept.authSecret ?? random() + random(),
    encryptionKey: kept.encryptionKey ?? random() + random(),
  };
  if (JSON.stringify(secrets) !== JSON.stringify(kept)) writeWhole(file, secrets);
  return secrets;
}

/** Writes `content` as JSON, readable by its owner alone; a reader sees the old file or the new one, never a part. */
export function writeWhole(file: string, content: unknown): void {
  const next = `${file}.${process.pid}.new`;
  fs.writeFileSync(next, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 });
  fs.renameSync(next, file);
}

/** A port of 127.0.0.1 that nothing listens on at this moment; whoever takes it must be ready to find it taken. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as net.AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/** A path as it is shown to people: relative where it lies in the folder `from`, else whole. */
export function shown(file: string, from = process.cwd()): string {
  const relative = path.relative(from, file);
  return relative && !relative.startsWith('..') ? relative : file;
}
