// The real daemon on a directory of its own, devices that share no code with it, and a browser.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";

const FUOTAD = process.env.FUOTAD;
/** Only decides how soon a failure shows on a loaded machine. */
export const PATIENCE = Number(process.env.PAGE_PATIENCE ?? 60_000);

/** A child process whose lines can be waited for. */
class Child {
  constructor(args, options) {
    this.seen = [];
    this.waiting = new Set();
    this.process = spawn(FUOTAD, args, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    this.exit = new Promise((resolve) => this.process.once("exit", (code) => resolve(code)));
    for (const stream of [this.process.stdout, this.process.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        this.seen.push(line);
        for (const look of this.waiting) look(line);
      });
    }
  }

  /** The first match in a line, also one that came before. */
  line(pattern) {
    return new Promise((resolve, reject) => {
      const found = this.seen.map((line) => pattern.exec(line)).find(Boolean);
      if (found) return resolve(found);
      const fail = (why) => reject(new Error(`${why}, without ${pattern}:\n${this.seen.join("\n")}`));
      const timer = setTimeout(() => fail("waited in vain"), PATIENCE);
      const look = (line) => {
        const match = pattern.exec(line);
        if (!match) return;
        clearTimeout(timer);
        this.waiting.delete(look);
        resolve(match);
      };
      this.waiting.add(look);
      void this.exit.then(() => fail("ended"));
    });
  }

  async end(signal = "SIGTERM") {
    if (this.process.exitCode === null && this.process.signalCode === null) this.process.kill(signal);
    return this.exit;
  }
}

export class Site {
  constructor() {
    this.path = mkdtempSync(join(tmpdir(), "fuotad-page-"));
    mkdirSync(join(this.path, "firmware"));
    this.children = [];
    this.admin = "127.0.0.1:0";
    this.mqtt = "127.0.0.1:0";
  }

  static async start(settings = "") {
    const site = new Site();
    site.settings = settings;
    await site.start();
    return site;
  }

  /** The addresses of the first start are kept, so that a page finds the second one. */
  async start() {
    writeFileSync(
      join(this.path, "broker.toml"),
      `mqtt.listen = "${this.mqtt}"\nadmin.listen = "${this.admin}"\nstore.settle = "200ms"\n` +
        `store.poll_interval = "500ms"\nfuota.resume_grace = "300ms"\n${this.settings}`,
    );
    this.daemon = new Child(["serve", "--config", "broker.toml"], { cwd: this.path });
    this.mqtt = (await this.daemon.line(/mqtt listening on ([\d.:]+)/))[1];
    this.admin = (await this.daemon.line(/admin listening on http:\/\/([\d.:]+)/))[1];
    await this.daemon.line(/^ready$/);
    this.token = readFileSync(join(this.path, "data/admin.token"), "utf8").trim();
  }

  stop(signal) {
    return this.daemon.end(signal);
  }

  get url() {
    return `http://${this.admin}`;
  }

  async api(method, path, body) {
    const answer = await fetch(`${this.url}/api/v1/${path}`, {
      method,
      headers: {
        Authorization: `Bearer ${this.token}`,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** A user, and its password. */
  async user(name, role) {
    return (await this.api("POST", "users", { name, role })).password;
  }

  /** Registers devices, and starts them; they fetch what they are offered. */
  async devices(names, options = []) {
    const { devices } = await this.api("POST", "import", { devices: names });
    const tokens = join(this.path, `tokens-${this.children.length}`);
    writeFileSync(tokens, devices.map(({ id, token }) => `${id},${token}`).join("\n"));
    return this.simulate([`--devices=${names.length}`, `--tokens=${tokens}`, ...options]);
  }

  simulate(options) {
    const child = new Child(
      ["simulate", `--broker=${this.mqtt}`, "--progress=lines", "--timeout=10min", ...options],
      { cwd: this.path },
    );
    this.children.push(child);
    return child;
  }

  /** By rename, so that it counts as complete. */
  drop(name, bytes) {
    const staged = join(this.path, "staged");
    writeFileSync(staged, bytes);
    mkdirSync(dirname(join(this.path, "firmware", name)), { recursive: true });
    renameSync(staged, join(this.path, "firmware", name));
  }

  async close() {
    for (const child of this.children) await child.end("SIGKILL");
    await this.daemon.end("SIGKILL");
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A line to a site's admin interface that can be cut. */
export class Line {
  static async to(site) {
    const line = new Line();
    line.cutAfter(Infinity);
    line.server = createServer((near) => {
      const [host, port] = site.admin.split(":");
      const far = connect(Number(port), host);
      let carried = 0;
      const end = () => [near, far].forEach((socket) => socket.destroy());
      near.on("data", async (bytes) => {
        carried += bytes.length;
        if (carried <= line.most) {
          if (!far.write(bytes)) near.pause();
          return;
        }
        near.pause();
        await line.meanwhile();
        [near, far].forEach((socket) => socket.resetAndDestroy());
        line.wasCut();
      });
      far.on("drain", () => near.resume());
      far.pipe(near);
      for (const socket of [near, far]) socket.on("error", end).on("close", end);
    });
    await new Promise((resolve) => line.server.listen(0, "127.0.0.1", resolve));
    return line;
  }

  /** Each connection is torn after so many bytes to the site, once `meanwhile` is done. */
  cutAfter(bytes, meanwhile = () => {}) {
    this.most = bytes;
    // A browser may try a request once more.
    let done;
    this.meanwhile = () => (done ??= meanwhile());
    this.cut = new Promise((resolve) => (this.wasCut = resolve));
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  close() {
    this.server.close();
  }
}

export function image(size) {
  return randomBytes(size);
}

/** Asks again until there is an answer. */
export async function eventually(what, probe) {
  const until = Date.now() + PATIENCE;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > until) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
