// Files that are dropped on the page, with their signatures, and those that are not taken.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { context, logIn } from "./browser.mjs";
import { browser, choose, page, toast } from "./page.mjs";
import { Line, Site, image } from "./site.mjs";

page("bad uploads say what is wrong", async ({ site, page }) => {
  await logIn(page, site);
  const attempt = async (name, bytes, fields = {}) => {
    await page.goto("/#/");
    while (await page.locator(".toast").count()) await page.locator(".toast button").first().click();
    await page.goto("/#/upload");
    await choose(page, name, bytes);
    for (const [label, value] of Object.entries(fields)) await page.getByLabel(label).fill(value);
    await page.getByRole("button", { name: "Upload and inspect" }).click();
  };
  await attempt("too-large-1.0.0.bin", image(3_000_000));
  await toast(page, /more than|larger|closed the connection/).first().waitFor();
  await attempt(".hidden-1.0.0.bin", image(100));
  await toast(page, "its file name must be").waitFor();
  await attempt("pump-1.0.0.bin", image(100), { Model: "not a model" });
  await page.getByText(/model/i).filter({ hasText: "not a model" }).first().waitFor();
  await attempt("empty-1.0.0.bin", Buffer.alloc(0));
  await page.locator(".toast.danger").last().waitFor();
  const { firmware } = await site.api("GET", "firmware");
  assert.deepEqual(firmware, [], "nothing of it is kept");
  await attempt("pump-1.0.0.bin", image(100));
  await page.getByRole("heading", { name: "Deploy" }).waitFor();
  await attempt("other-pump.bin", image(100), { Title: "pump", Version: "1.0.0" });
  await toast(page, "give this another version").waitFor();
}, { settings: 'store.max_size = "1 MB"\n' });

test("an upload that is cut off leaves nothing, and can be repeated", async () => {
  const site = await Site.start();
  const line = await Line.to(site);
  const window = await context(browser, line);
  try {
    const page = await window.newPage();
    await logIn(page, site);
    await page.goto("/#/upload");
    const bytes = image(6_000_000);
    await choose(page, "pump-1.0.0.bin", bytes);
    const send = () => page.getByRole("button", { name: "Upload and inspect" }).click();
    const brokeOff = async () => {
      await page.locator("#main").getByText("The upload broke off").waitFor();
      await page.locator(".toast button").first().click();
      assert.deepEqual((await site.api("GET", "firmware")).firmware, []);
      assert.equal((await site.api("POST", "firmware/rescan")).copies, 0, "no bytes are kept either");
    };
    // The network fails.
    line.cutAfter(2_000_000);
    await send();
    await line.cut;
    await brokeOff();
    // The broker dies.
    line.cutAfter(2_000_000, async () => {
      await site.stop("SIGKILL");
      await site.start();
    });
    await send();
    await line.cut;
    await brokeOff();
    // The file is still chosen.
    line.cutAfter(Infinity);
    await page.locator(".stream.live").waitFor();
    await send();
    await page.getByRole("heading", { name: "Deploy" }).waitFor();
    const { firmware } = await site.api("GET", "firmware");
    assert.deepEqual(firmware.map(({ path, size }) => [path, size]), [["uploads/pump-1.0.0.bin", bytes.length]]);
    assert.deepEqual(window.wrong, []);
  } finally {
    await window.close();
    line.close();
    await site.close();
  }
});

test("a signature is dropped with its file, and shown", async () => {
  const keys = mkdtempSync(join(tmpdir(), "fuotad-page-keys-"));
  const run = (...args) => {
    const done = spawnSync(process.env.FUOTAD, args, { cwd: keys, encoding: "utf8" });
    assert.equal(done.status, 0, done.stderr);
  };
  run("firmware", "keygen", "site", "--no-password");
  const bytes = image(9000);
  writeFileSync(join(keys, "pump.bin"), bytes);
  run("firmware", "sign", "pump.bin", "--key", "site.key", "--version", "3.1.4", "--title", "pump");
  const settings = `store.trusted_keys = ["${join(keys, "site.pub")}"]\nstore.require_signature = true\n`;
  const site = await Site.start(settings);
  const window = await context(browser, site);
  try {
    const page = await window.newPage();
    await logIn(page, site);
    await page.goto("/#/upload");
    await choose(page, "pump.bin", bytes);
    await page.getByRole("button", { name: "Upload and inspect" }).click();
    await page.locator(".toast").filter({ hasText: /sign/ }).waitFor();
    await page.goto("/#/");
    await page.goto("/#/upload");
    while (await page.locator(".toast").count()) await page.locator(".toast button").first().click();
    await page.getByLabel("Firmware file").setInputFiles([
      { name: "pump.bin", mimeType: "application/octet-stream", buffer: bytes },
      { name: "pump.bin.minisig", mimeType: "text/plain", buffer: readFileSync(join(keys, "pump.bin.minisig")) },
    ]);
    await page.getByText("with the signature pump.bin.minisig").waitFor();
    await page.getByRole("button", { name: "Upload and inspect" }).click();
    await page.getByText("signed by a trusted key").waitFor();
    await page.getByText("3.1.4", { exact: false }).first().waitFor();
    assert.deepEqual(window.wrong, []);
  } finally {
    await window.close();
    await site.close();
    rmSync(keys, { recursive: true, force: true });
  }
});
