// Makes dist/ from src/: one script, one worker, one stylesheet, each also packed.
// `node build.mjs` writes; `node build.mjs --check` fails where dist/ is not what src/ makes.
import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { brotliCompressSync, brotliDecompressSync, constants, gunzipSync, gzipSync } from "node:zlib";

const here = new URL(".", import.meta.url);
const file = (path) => new URL(path, here);
const dist = (name) => file(`dist/${name}`);

async function bundle(entry, more = {}) {
  const { outputFiles } = await build({
    entryPoints: [file(entry).pathname],
    absWorkingDir: here.pathname,
    bundle: true,
    minify: true,
    write: false,
    charset: "utf8",
    legalComments: "none",
    target: ["es2022", "chrome100", "firefox102", "safari16"],
    jsx: "automatic",
    jsxImportSource: "preact",
    define: { "process.env.NODE_ENV": '"production"' },
    ...more,
  });
  return outputFiles[0].contents;
}

/** The licenses of what is in the bundle. */
async function licenses() {
  const parts = [];
  for (const name of ["preact", "@preact/signals", "@preact/signals-core"]) {
    const { version } = JSON.parse(await readFile(file(`node_modules/${name}/package.json`), "utf8"));
    const text = await readFile(file(`node_modules/${name}/LICENSE`), "utf8");
    parts.push(`${name} ${version}\n\n${text.trim()}\n`);
  }
  return Buffer.from(`The page contains these libraries.\n\n${parts.join("\n\n")}`);
}

const made = {
  "index.html": await readFile(file("src/index.html")),
  "icon.svg": await readFile(file("src/icon.svg")),
  "app.js": await bundle("src/main.tsx"),
  "live.js": await bundle("src/live-worker.ts"),
  "app.css": await bundle("src/style.css"),
  "licenses.txt": await licenses(),
};

const brotli = {
  params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT },
};

if (process.argv.includes("--check")) {
  // Packed forms may differ between versions of node; what they unpack to may not.
  const wrong = [];
  for (const [name, bytes] of Object.entries(made)) {
    const expected = Buffer.from(bytes);
    for (const [end, unpack] of [["", (it) => it], [".gz", gunzipSync], [".br", brotliDecompressSync]]) {
      const kept = await readFile(dist(name + end)).then(unpack, () => undefined);
      if (!kept?.equals(expected)) wrong.push(name + end);
    }
  }
  if (wrong.length > 0) {
    console.error(`dist/ is not what src/ makes: ${wrong.join(", ")}; run npm run build and commit it`);
    process.exit(1);
  }
  console.log("dist/ is what src/ makes");
} else {
  await mkdir(dist(""), { recursive: true });
  let all = 0;
  for (const [name, bytes] of Object.entries(made)) {
    const packed = brotliCompressSync(bytes, brotli);
    all += packed.length;
    await writeFile(dist(name), bytes);
    await writeFile(dist(`${name}.gz`), gzipSync(bytes, { level: 9 }));
    await writeFile(dist(`${name}.br`), packed);
    console.log(`${name.padEnd(14)} ${String(bytes.length).padStart(7)} bytes, ${packed.length} packed`);
  }
  console.log(`${"all".padEnd(14)} ${String(all).padStart(22)} packed`);
}
