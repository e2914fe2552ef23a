// The page in a real browser, against the real daemon and devices that are not its own.
// Each test has a site of its own; they wait for what shows, and never for a time.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { axe, context, launch, logIn } from "./browser.mjs";
import { Line, Site, eventually, image } from "./site.mjs";

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** Runs with a site and a browser, and fails where the browser had something to complain of. */
function page(name, run, { settings = "", options = {} } = {}) {
  test(name, async () => {
    const site = await Site.start(settings);
    const window = await context(browser, site, options);
    try {
      await run({ site, window, page: await window.newPage() });
      assert.deepEqual(window.wrong, []);
    } catch (error) {
      // What the page showed, for whoever reads the log.
      const shown = window.pages().at(-1);
      const text = await shown?.locator("body").innerText({ timeout: 1000 }).catch(() => "");
      error.message += `\n--- the page showed ---\n${text}`;
      throw error;
    } finally {
      await window.close();
      await site.close();
    }
  });
}

const toast = (page, text) => page.locator(".toast").filter({ hasText: text });
const row = (page, text) => page.getByRole("row").filter({ hasText: text });

/** Waits until all that the view reads is read. */
async function settled(page) {
  await page.locator("main h1, main .callout.bad").first().waitFor();
  await page.waitForFunction(() => !document.querySelector("main .empty[aria-busy], main .stale"));
}

async function choose(page, name, bytes) {
  await page.getByLabel("Firmware file").setInputFiles({
    name,
    mimeType: "application/octet-stream",
    buffer: bytes,
  });
}

page("from the upload to updated devices, watched live", async ({ site, page }) => {
  await logIn(page, site);
  await site.devices(
    ["pump-1", "pump-2", "pump-3"].map((id) => ({ id, groups: ["hall-2"], model: "pump-x" })),
    ["--report", "--pace=20ms", "--linger=10min"],
  );
  await page.getByRole("link", { name: "Upload", exact: true }).click();
  await choose(page, "pump-1.4.2.bin", image(4096 * 60 + 17));
  await page.getByRole("button", { name: "Upload and inspect" }).click();
  await page.getByRole("heading", { name: "Deploy" }).waitFor();
  await toast(page, "is uploaded").waitFor();
  const what = page.locator("section.card").filter({ hasText: "What it is" });
  await what.getByText("1.4.2 from the file name").waitFor();
  await what.getByText(/^[0-9a-f]{64}$/).waitFor();

  await page.getByLabel("A group").check();
  await page.getByLabel("Group", { exact: true }).fill("hall-2");
  await page.getByRole("button", { name: "See the plan" }).click();
  await page.getByText("3 devices would get it").waitFor();
  await page.getByRole("button", { name: "Start" }).click();
  await page.getByRole("heading", { level: 1, name: "pump 1.4.2" }).waitFor();

  // Not one reload from here on.
  let reloads = 0;
  page.on("framenavigated", (frame) => (reloads += frame === page.mainFrame() && !frame.url().includes("#") ? 1 : 0));
  await page.getByRole("link", { name: "Devices", exact: true }).click();
  const bar = row(page, "pump-1").getByRole("progressbar");
  await bar.waitFor();
  const first = Number(await bar.getAttribute("aria-valuenow"));
  await eventually("the bar moves", async () => {
    const now = await bar.getAttribute("aria-valuenow", { timeout: 500 }).catch(() => "100");
    return Number(now) > first;
  });
  for (const id of ["pump-1", "pump-2", "pump-3"]) {
    await row(page, id).getByText("updated", { exact: true }).waitFor();
    await row(page, id).getByRole("cell", { name: "1.4.2", exact: true }).waitFor();
  }
  assert.equal(reloads, 0);
  await page.getByRole("link", { name: "pump-2" }).click();
  await page.locator(".timeline").getByText("updated", { exact: true }).waitFor();
  await page.locator(".callout").getByText(/1\.4\.2/).waitFor();
});

page("a rollout is paused, resumed and cancelled", async ({ site, page }) => {
  await site.devices(
    Array.from({ length: 4 }, (_, index) => ({ id: `valve-${index}`, model: "valve" })),
    ["--report", "--pace=400ms", "--linger=10min"],
  );
  site.drop("valve-2.0.0.bin", image(4096 * 30));
  await logIn(page, site);
  await page.getByRole("link", { name: "Rollouts", exact: true }).click();
  await page.getByRole("link", { name: "valve 2.0.0" }).click();
  const state = page.getByRole("heading", { level: 1 });
  await state.getByText("running").waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await state.getByText("paused").waitFor();
  await page.getByText("paused by admin token").waitFor();
  await page.getByRole("link", { name: "Overview" }).click();
  await page.getByText(/Rollout 1 of valve 2\.0\.0 is paused/).click();
  await page.getByRole("button", { name: "Resume" }).click();
  await state.getByText("running").waitFor();
  assert.equal((await site.api("GET", "deployments/1")).state, "running");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "No, leave it" }).click();
  assert.equal((await site.api("GET", "deployments/1")).state, "running", "asked, and left");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await state.getByText("cancelled").waitFor();
  await page.getByRole("link", { name: "Audit" }).click();
  for (const act of ["pause", "resume", "cancel"]) {
    await row(page, `${act} deployment 1`).getByText("admin token").waitFor();
  }
});

page("a rollout is changed while it runs", async ({ site, page }) => {
  await site.devices([{ id: "fan-1" }], ["--report", "--pace=300ms", "--linger=10min"]);
  site.drop("fan-2.0.0.bin", image(4096 * 30));
  await eventually("it runs", async () => (await site.api("GET", "deployments")).deployments.length === 1);
  await logIn(page, site);
  await page.goto("/#/rollouts/1");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Transfers at once").fill("5");
  await dialog.getByLabel("Pause at").fill("250");
  await dialog.getByLabel("Offered").selectOption("own");
  await dialog.getByLabel("Windows").fill("sometimes");
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByText(/sometimes/).last().waitFor();
  await dialog.getByLabel("Windows").fill("mon-fri 22:00-04:00 Europe/Berlin");
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByText("1 to 100").waitFor();
  await dialog.getByLabel("Pause at").fill("25");
  await dialog.getByRole("button", { name: "Save" }).click();
  await toast(page, "Rollout 1 is changed").waitFor();
  await page.getByText("when 25 % of a wave have failed or are silent").waitFor();
  await page.getByText("mon-fri 22:00-04:00 Europe/Berlin").first().waitFor();
  const one = await site.api("GET", "deployments/1");
  assert.deepEqual(one.limits, { transfers: 5 });
  assert.deepEqual(one.windows, ["mon-fri 22:00-04:00 Europe/Berlin"]);
  assert.equal(one.rollout.pause_at_percent, 25);
  await page.goto("/#/audit");
  await row(page, "changed deployment 1").getByText("transfers: 5, was none").waitFor();
});

page("an update is cancelled for one device, and offered again", async ({ site, page }) => {
  const ids = ["fan-1", "fan-2"];
  await site.devices(ids.map((id) => ({ id })), ["--report", "--pace=300ms", "--linger=10min"]);
  site.drop("fan-2.0.0.bin", image(4096 * 30));
  const state = async (id) => (await site.api("GET", `devices/${id}`)).state;
  for (const id of ids) await eventually(`${id} downloads`, async () => (await state(id)) === "downloading");
  await logIn(page, site);
  await page.goto("/#/devices/fan-1");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByText("goes on for the others").waitFor();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel it for fan-1" }).click();
  await toast(page, "Cancelled for fan-1").waitFor();
  await page.locator(".callout").getByText("admin token cancelled it for this device").waitFor();
  await page.locator(".state").getByText("cancelled", { exact: true }).waitFor();
  await page.locator(".timeline").getByText("cancelled", { exact: true }).waitFor();
  const rollout = await site.api("GET", "deployments/1");
  assert.equal(rollout.state, "running");
  assert.equal(rollout.counts.cancelled, 1);
  await eventually("fan-2 has it", async () => (await state("fan-2")) === "updated");
  assert.equal(await state("fan-1"), "cancelled");

  await page.getByRole("button", { name: "Offer again" }).click();
  await toast(page, "fan-1 is offered it again").waitFor();
  await eventually("fan-1 has it too", async () => (await state("fan-1")) === "updated");
});

page("a rollout is retried, opened and rolled back", async ({ site, page }) => {
  const names = ["valve-0", "valve-1", "valve-2"];
  const all = async (version) => {
    const { devices } = await site.api("GET", "devices");
    return devices.every((device) => device.version === version && device.state === "updated");
  };
  const first = await site.devices(names.map((id) => ({ id })), ["--report"]);
  site.drop("valve-1.0.0.bin", image(5000));
  await eventually("all have the first", () => all("1.0.0"));
  assert.equal(await first.exit, 0);
  const again = (...more) =>
    site.simulate([`--devices=${names.length}`, `--tokens=${join(site.path, "tokens-0")}`, ...more]);

  // The canary finds that its image is not the right one, says nothing and is gone.
  site.drop("valve-2.0.0.bin", image(4096 * 30));
  const broken = again(`--expect-sha256=${"0".repeat(64)}`);
  await logIn(page, site);
  await page.goto("/#/rollouts/2");
  const state = page.locator("h1");
  await eventually("the canary has it", async () => (await site.api("GET", "deployments/2")).counts.downloaded === 1);
  await broken.end("SIGKILL");
  await state.getByText("paused").waitFor();
  await page.getByText("1 of 1 devices of wave 1 failed or fell silent", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Retry the failed" }).click();
  await toast(page, "1 device may be offered it again.").waitFor();
  const second = again("--report", "--pace=100ms");
  await page.getByRole("button", { name: "Resume" }).click();
  await toast(page, "It goes on.").waitFor();
  await page.getByRole("button", { name: "Open the next wave" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Open the next wave" }).click();
  await toast(page, "The next wave is open.").waitFor();
  await eventually("all have the second", () => all("2.0.0"));
  assert.equal(await second.exit, 0);

  await page.getByRole("button", { name: "Roll back" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Roll back" }).click();
  await state.getByText("cancelled").waitFor();
  const third = again("--report");
  await page.getByRole("dialog").getByRole("link", { name: "rollout 3" }).click();
  await state.getByText("valve 1.0.0").waitFor();
  await eventually("all have the first again", () => all("1.0.0"));
  assert.equal(await third.exit, 0);
}, { settings: 'fuota.drop_rollout = "canary"\nfuota.confirm_within = "2s"\n' });

page("a device is edited, its firmware withdrawn, and its connection seen and ended", async ({ site, page }) => {
  await site.devices([{ id: "pump-1" }], ["--report", "--linger=10min"]);
  site.drop("pump-1.0.0.bin", image(5000));
  await eventually("it is updated", async () => (await site.api("GET", "devices/pump-1")).state === "updated");
  await logIn(page, site);
  const versions = page.locator("section.card").filter({ hasText: "Versions in the field" });
  await versions.getByRole("listitem").filter({ hasText: "1.0.0" }).getByText("1", { exact: true }).waitFor();

  await page.goto("/#/devices/pump-1");
  await page.getByRole("button", { name: "Edit" }).click();
  await page.getByLabel("Labels").fill("floor=3\nhall=2");
  await page.getByLabel("Groups").fill("pumps");
  await page.getByRole("button", { name: "Save" }).click();
  await toast(page, "pump-1 is changed").waitFor();
  await page.locator(".tag").getByText("floor=3").waitFor();
  const { labels, groups } = await site.api("GET", "devices/pump-1");
  assert.deepEqual([labels, groups], [{ floor: "3", hall: "2" }, ["pumps"]]);

  await page.getByRole("button", { name: "New token" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Make a new token" }).click();
  const token = await page.getByRole("dialog").locator(".secret code").innerText();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();

  await page.goto("/#/broker");
  await page.getByText("Messages in").waitFor();
  await page.locator("dl").filter({ hasText: "Router renewals" }).waitFor();
  await row(page, "pump-1").getByRole("link", { name: "pump-1" }).click();
  await row(page, "tago/data/post").waitFor();
  await page.getByRole("button", { name: "Disconnect" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Disconnect" }).click();
  await toast(page, "Disconnected.").waitFor();

  site.drop("tool-1.0.0.bin", Buffer.concat([Buffer.from("\x7fELF\x02\x01\x01"), Buffer.alloc(2000)]));
  await page.getByRole("link", { name: "Firmware", exact: true }).click();
  await row(page, "tool-1.0.0.bin").getByText("refused").waitFor();
  await row(page, "tool-1.0.0.bin").getByText(/ELF/).waitFor();
  await page.getByRole("link", { name: "pump-1.0.0.bin" }).click();
  await row(page, "pump-1").waitFor();
  await page.getByRole("button", { name: "Withdraw" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Withdraw" }).click();
  await toast(page, "Withdrawn.").waitFor();
  await page.locator("h1").getByText("withdrawn").waitFor();

  // The new token opens, and the device gets what is next with it.
  site.drop("pump-1.1.0.bin", image(6000));
  writeFileSync(join(site.path, "new"), `pump-1,${token}\n`);
  assert.equal(await site.simulate(["--devices=1", `--tokens=${join(site.path, "new")}`, "--report"]).exit, 0);
});

page("the site is frozen and goes on", async ({ site, page }) => {
  await logIn(page, site);
  await page.getByRole("button", { name: "Freeze the site" }).click();
  await page.getByText(/All offers are stopped by admin token/).waitFor();
  assert.equal((await site.api("GET", "freeze")).frozen, true);
  await page.getByRole("button", { name: "Unfreeze" }).click();
  await toast(page, "Offers go on").waitFor();
  assert.equal((await site.api("GET", "freeze")).frozen, false);
});

page("who is not let in, and who sees what", async ({ site, window, page }) => {
  const ann = { name: "ann", password: await site.user("ann", "operator") };
  const grafana = { name: "grafana", password: await site.user("grafana", "service") };
  await site.user("pump-9", "device");
  site.drop("pump-1.0.0.bin", image(5000));
  await page.goto("/");
  for (const [name, password] of [["ann", "not the password"], ["nobody", "anything at all"]]) {
    await page.getByLabel("Name").fill(name);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("alert").getByText("the user name or the password is wrong").waitFor();
  }
  await page.getByText("Admin token", { exact: true }).click();
  await page.getByLabel("Admin token").last().fill("0123456789abcdef0123456789abcdef");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("this is not the admin token").waitFor();

  // A service reads, and is shown no button that it cannot use.
  await logIn(page, site, grafana);
  const hidden = ["Upload", "Audit", "Freeze the site", "Pause", "Cancel", "Withdraw", "Deploy", "Edit", "New token", "Disconnect", "Remove", "Roll back", "Offer again"];
  const looksClean = async (who, allowed = []) => {
    for (const name of hidden.filter((name) => !allowed.includes(name))) {
      const found = page.getByRole("button", { name }).or(page.getByRole("link", { name, exact: true }));
      assert.equal(await found.count(), 0, `${who} sees ${name} at ${page.url()}`);
    }
  };
  const { firmware } = await site.api("GET", "firmware");
  await site.devices([{ id: "pump-1" }], ["--pace=1s", "--linger=10min"]);
  await eventually("pump-1 downloads", async () => (await site.api("GET", "devices/pump-1")).state === "downloading");
  const places = ["#/", "#/devices", "#/devices/pump-1", "#/rollouts", "#/rollouts/1", "#/firmware", `#/firmware/${firmware[0].id}`, "#/broker", "#/broker/clients/pump-1"];
  for (const place of places) {
    await page.goto(`/${place}`);
    await settled(page);
    await looksClean("a service");
  }
  await page.goto("/#/upload");
  await page.getByText("not for your role").waitFor();
  const refused = await page.evaluate(async () => {
    const { csrf } = await (await fetch("/api/v1/session")).json();
    const answer = await fetch("/api/v1/freeze", { method: "PUT", headers: { "X-CSRF-Token": csrf } });
    return answer.status;
  });
  assert.equal(refused, 403, "the daemon decides, not the page");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("button", { name: "Log in" }).waitFor();

  await logIn(page, site, ann);
  await page.goto("/#/rollouts/1");
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("heading", { level: 1 }).getByText("paused").waitFor();
  await page.goto("/#/devices/pump-1");
  await page.getByRole("heading", { level: 1, name: "pump-1" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "Edit" }).count(), 0, "an operator edits no device");
  await page.goto("/#/audit");
  await row(page, "pause deployment 1").getByText("ann").waitFor();

  // What a login hangs on changes: it is over, wherever it is open.
  await site.api("PATCH", "users/ann", { new_password: true });
  await page.getByRole("link", { name: "Devices", exact: true }).click();
  await page.getByRole("button", { name: "Log in" }).waitFor();
  const [cookie] = await window.cookies();
  assert.ok(cookie.httpOnly && cookie.sameSite === "Strict" && cookie.path === "/", JSON.stringify(cookie));
});

page("guessing is locked out", async ({ site, page }) => {
  await page.goto("/");
  await page.getByText("Admin token", { exact: true }).click();
  const field = page.getByLabel("Admin token").last();
  const alert = page.getByRole("alert");
  for (let guess = 0; guess < 12; guess += 1) {
    await field.fill(`guess number ${guess}`);
    const answered = page.waitForResponse((response) => response.url().endsWith("/session"));
    await page.getByRole("button", { name: "Log in" }).click();
    await answered;
    if (await alert.getByText("too many logins failed").count()) break;
  }
  await alert.getByText("too many logins failed from this address").waitFor();
  // Not even the right one is looked at then, or guessing would go on behind the answer.
  const attempt = (token) =>
    fetch(`${site.url}/api/v1/session`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
  await eventually("the address waits", async () => {
    const text = await (await attempt("another guess")).text();
    return text.includes("too many logins failed");
  });
  const right = await attempt(site.token);
  assert.ok(right.status >= 400 && !right.headers.has("set-cookie"), `${right.status}`);
});

page("names are text, wherever they come from", async ({ site, window, page }) => {
  const evil = "<img src=x onerror=\"globalThis.pwned=1;alert(1)\">";
  const script = "\"><script>globalThis.pwned=1</script>";
  await logIn(page, site);
  site.simulate([`--id-prefix=${evil}`, "--report", "--linger=10min", "--protocol=5"]);
  await site.api("POST", "devices", { id: "pump-1", labels: { note: evil, other: "javascript:alert(1)" } });
  await page.goto("/#/upload");
  await choose(page, `${evil}.bin`.replaceAll("/", ""), image(20_000));
  await page.getByLabel("Version").fill(script);
  await page.getByLabel("Title").fill(evil);
  await page.getByRole("button", { name: "Upload and inspect" }).click();
  await page.getByRole("heading", { name: "Deploy" }).waitFor();
  await page.getByLabel("All devices").check();
  await page.getByRole("button", { name: "See the plan" }).click();
  await page.getByRole("button", { name: /^Start/ }).click();
  await page.getByRole("heading", { level: 1, name: script }).waitFor();
  const devices = await eventually("it is updated", async () => {
    const { devices } = await site.api("GET", "devices");
    return devices.some((device) => device.state === "updated") && devices;
  });
  const { firmware } = await site.api("GET", "firmware");
  const { clients } = await site.api("GET", "clients");
  const places = ["#/", "#/devices", "#/rollouts", "#/rollouts/1", "#/firmware", "#/audit", "#/broker"]
    .concat(devices.map(({ id }) => `#/devices/${encodeURIComponent(id)}`))
    .concat(firmware.map(({ id }) => `#/firmware/${encodeURIComponent(id)}`))
    .concat(clients.map(({ id }) => `#/broker/clients/${encodeURIComponent(id)}`))
    .concat(`#/devices?search=${encodeURIComponent(evil)}`, `#/devices/${encodeURIComponent(evil)}`, `#/${encodeURIComponent(evil)}`);
  let shown = 0;
  for (const place of places) {
    await page.goto(`/${place}`);
    await settled(page);
    shown += (await page.locator("main").innerText()).includes("onerror=") ? 1 : 0;
    assert.equal(await page.evaluate(() => globalThis.pwned), undefined, place);
    assert.equal(await page.locator("main img, main script, main iframe").count(), 0, place);
  }
  assert.ok(shown >= 4, `the names do show, as text: ${shown} of ${places.length}`);
  assert.deepEqual(window.wrong, []);
});

page("a stolen cookie opens nothing to another origin", async ({ site, window, page }) => {
  await logIn(page, site);
  // Cookies know no ports: a page of another server on this host sends ours along.
  const other = createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end("<!doctype html><title>another origin</title>");
  });
  await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
  try {
    const thief = await window.newPage();
    await thief.goto(`http://127.0.0.1:${other.address().port}/`);
    const sent = [];
    thief.on("request", (request) => sent.push(request));
    const statuses = [];
    thief.on("response", (response) => statuses.push(response.status()));
    const results = await thief.evaluate(async (url) => {
      const attempts = [
        ["GET", "/api/v1/devices", {}],
        ["PUT", "/api/v1/freeze", {}],
        ["POST", "/api/v1/users", { mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: "{\"name\":\"eve\",\"role\":\"admin\"}" }],
        ["GET", "/api/v1/devices", { mode: "no-cors" }],
        ["DELETE", "/api/v1/session", { mode: "no-cors" }],
        ["POST", "/api/v1/session", { mode: "no-cors", body: "{}" }],
      ];
      const results = [];
      for (const [method, path, init] of attempts) {
        results.push(
          await fetch(url + path, { method, credentials: "include", ...init }).then(
            (answer) => answer.type,
            () => "failed",
          ),
        );
      }
      return results;
    }, site.url);
    assert.ok(results.every((one) => one === "failed" || one === "opaque"), results.join());
    assert.ok(statuses.filter((status) => status < 400).length === 0, `answers: ${statuses}`);
    // The same without a browser's honesty: the cookie, and an Origin that lies or is absent.
    const [cookie] = await window.cookies();
    const ask = async (method, headers) => {
      const answer = await fetch(`${site.url}/api/v1/freeze`, {
        method,
        headers: { Cookie: `${cookie.name}=${cookie.value}`, ...headers },
      });
      return answer.status;
    };
    assert.equal(await ask("PUT", { Origin: "http://evil.example" }), 403);
    assert.equal(await ask("PUT", {}), 403, "no X-CSRF-Token");
    assert.equal(await ask("PUT", { Origin: site.url, "X-CSRF-Token": "0".repeat(64) }), 403);
    assert.equal(await ask("GET", { Host: "evil.example", "Sec-Fetch-Site": "same-site" }), 403);
    assert.equal((await site.api("GET", "freeze")).frozen, false);
    assert.deepEqual((await site.api("GET", "users")).users, []);
    // A page of another origin cannot put it into a frame either.
    await thief.evaluate((url) => {
      const frame = document.createElement("iframe");
      frame.src = url;
      document.body.append(frame);
      return new Promise((resolve) => (frame.onload = resolve));
    }, site.url);
    const framed = thief.frames().find((frame) => frame !== thief.mainFrame());
    assert.ok(!framed.url().startsWith(site.url) || !(await framed.content()).includes("app.js"));
    await thief.close();
    await page.reload();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
  } finally {
    other.closeAllConnections();
    other.close();
    // The thief's own requests are no fault of the page.
    window.wrong = window.wrong.filter(
      (text) => !text.includes(String(other.address()?.port ?? "")) && !/frame-ancestors|a request to/.test(text),
    );
  }
});

page("ten tabs are all live", async ({ site, window, page }) => {
  await logIn(page, site);
  const tabs = [page];
  while (tabs.length < 10) {
    const tab = await window.newPage();
    await tab.goto("/#/devices");
    tabs.push(tab);
  }
  await page.goto("/#/devices");
  for (const tab of tabs) await tab.locator(".stream.live").waitFor();
  site.drop("pump-1.0.0.bin", image(4096 * 4));
  await site.devices([{ id: "pump-1" }], ["--report", "--linger=10min"]);
  for (const tab of tabs) await row(tab, "pump-1").getByText("updated", { exact: true }).waitFor();
  // And each can still ask for more.
  for (const tab of tabs) {
    await tab.getByRole("link", { name: "Rollouts", exact: true }).click();
    await tab.getByRole("link", { name: "pump 1.0.0" }).waitFor();
  }
});

page("a broker that restarts behind an open page", async ({ site, page }) => {
  await site.api("POST", "devices", { id: "pump-1" });
  await logIn(page, site);
  await page.getByRole("link", { name: "Devices", exact: true }).click();
  await row(page, "pump-1").waitFor();
  for (const signal of ["SIGTERM", "SIGKILL"]) {
    await site.stop(signal);
    await page.getByText("The broker does not answer").waitFor();
    await row(page, "pump-1").waitFor();
    await site.start();
    await site.api("POST", "devices", { id: `after-${signal.toLowerCase()}` });
    await page.locator(".stream.live").waitFor();
    await row(page, `after-${signal.toLowerCase()}`).waitFor();
    assert.equal(await page.getByText("The broker does not answer").count(), 0);
    assert.equal(await page.getByRole("button", { name: "Log in" }).count(), 0, "still logged in");
  }
});

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

page("lists of 10,000 devices, and links to them", async ({ site, window, page }) => {
  const devices = Array.from({ length: 10_000 }, (_, index) => ({
    id: `unit-${String(index).padStart(5, "0")}`,
    groups: [`hall-${index % 40}`],
    model: `model-${index % 7}`,
  }));
  await site.api("POST", "import", { devices });
  await logIn(page, site);
  await page.getByRole("link", { name: "Devices", exact: true }).click();
  await row(page, "unit-00049").waitFor();
  assert.equal(await page.getByRole("row").count(), 51, "a page, and its head");
  await page.getByRole("link", { name: "Next page" }).click();
  await row(page, "unit-00099").waitFor();
  await page.getByLabel("Search by id").fill("0777");
  await row(page, "unit-00777").waitFor();
  await page.getByLabel("Group").selectOption("hall-17");
  await row(page, "unit-07777").waitFor();
  await eventually("only those two are left", async () => (await page.getByRole("row").count()) === 3);
  // The address is the list: somebody else sees the same.
  const friend = await window.newPage();
  await friend.goto(page.url());
  await row(friend, "unit-07777").waitFor();
  assert.equal(await friend.getByRole("row").count(), 3);
  assert.equal(await friend.getByLabel("Search by id").inputValue(), "0777");
});

page("what changed while nobody was heard is not lost", async ({ site, window, page }) => {
  await logIn(page, site);
  await page.getByRole("link", { name: "Firmware", exact: true }).click();
  await page.getByText("There is no firmware yet").waitFor();
  await window.setOffline(true);
  site.drop("pump-1.0.0.bin", image(3000));
  await eventually("it is taken in", async () => (await site.api("GET", "firmware")).firmware.length === 1);
  await window.setOffline(false);
  await row(page, "pump-1.0.0.bin").waitFor();
});

const ACCESSIBLE = ["#/", "#/devices", "#/devices/pump-1", "#/rollouts", "#/rollouts/1", "#/firmware", "#/upload", "#/broker", "#/audit"];

for (const scheme of ["light", "dark"]) {
  page(`accessible by axe, ${scheme}`, async ({ site, page }) => {
    await page.goto("/");
    await page.getByRole("button", { name: "Log in" }).waitFor();
    assert.deepEqual(await axe(page), [], "the login");
    await logIn(page, site);
    await site.devices([{ id: "pump-1", groups: ["a"], labels: { floor: "1" } }, { id: "pump-2" }], ["--pace=500ms", "--linger=10min"]);
    site.drop("pump-1.0.0.bin", image(4096 * 20));
    site.drop("devices/deeper/than/allowed.bin", image(100));
    await eventually("it downloads", async () => (await site.api("GET", "devices/pump-1")).state === "downloading");
    const { firmware } = await site.api("GET", "firmware");
    for (const place of ACCESSIBLE.concat(`#/firmware/${firmware[0].id}`, `#/deploy/${firmware[0].id}`)) {
      await page.goto(`/${place}`);
      await settled(page);
      assert.deepEqual(await axe(page), [], place);
    }
    await page.goto("/#/devices/pump-1");
    await page.getByRole("button", { name: "Edit" }).click();
    await page.getByRole("dialog").waitFor();
    assert.deepEqual(await axe(page), [], "a dialog");
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    assert.equal(await page.evaluate(() => document.activeElement?.textContent?.trim()), "Edit", "the focus is back");
  }, { options: { colorScheme: scheme } });
}

page("by keyboard alone", async ({ site, page }) => {
  await site.api("POST", "devices", { id: "pump-1" });
  await page.goto("/");
  await page.getByLabel("Name").waitFor();
  const focused = () => page.evaluate(() => {
    const element = document.activeElement;
    return element?.getAttribute("aria-label") ?? element?.textContent?.trim() ?? "";
  });
  const tabTo = async (name) => {
    for (let step = 0; step < 60; step += 1) {
      if ((await focused()) === name) return;
      await page.keyboard.press("Tab");
    }
    throw new Error(`Tab never comes to ${name}`);
  };
  await page.keyboard.press("Tab");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Tab");
  await page.keyboard.type(site.token);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await tabTo("Devices");
  await page.keyboard.press("Enter");
  await row(page, "pump-1").waitFor();
  await tabTo("pump-1");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "pump-1" }).waitFor();
  await tabTo("Edit");
  await page.keyboard.press("Enter");
  await page.getByLabel("Model").waitFor();
  await tabTo("Save");
  await page.keyboard.press("Enter");
  await toast(page, "pump-1 is changed").waitFor();
});

page("on a phone of 360 pixels nothing is cut off", async ({ site, page }) => {
  await site.devices(
    [{ id: "a-device-with-a-rather-long-name.hall-2.floor-3.row-17", groups: ["hall-2"] }],
    ["--pace=500ms", "--linger=10min"],
  );
  site.drop("a-firmware-with-a-rather-long-name-for-a-phone-1.0.0-rc.1.bin", image(4096 * 20));
  await logIn(page, site);
  await eventually("it downloads", async () => (await site.api("GET", "devices")).devices[0].state === "downloading");
  const { firmware } = await site.api("GET", "firmware");
  const { devices } = await site.api("GET", "devices");
  for (const place of ["#/", "#/devices", `#/devices/${devices[0].id}`, "#/rollouts", "#/rollouts/1", "#/firmware", `#/firmware/${firmware[0].id}`, `#/deploy/${firmware[0].id}`, "#/upload", "#/broker", "#/audit"]) {
    await page.goto(`/${place}`);
    await settled(page);
    const wide = await page.evaluate(() => {
      const width = document.documentElement.clientWidth;
      const out = [...document.querySelectorAll("main *, .top *")].filter((element) => {
        const box = element.getBoundingClientRect();
        return box.width > 1 && (box.right > width + 1 || box.left < -1) && !element.closest(".hidden, .skip, thead");
      });
      return [document.documentElement.scrollWidth - width, ...out.slice(0, 3).map((element) => element.outerHTML.slice(0, 120))];
    });
    assert.deepEqual(wide, [0], place);
  }
  // Fingers need room.
  const small = await page.locator(".places a, main button, main .button").evaluateAll((elements) =>
    elements.filter((element) => element.getBoundingClientRect().height < 24).map((element) => element.outerHTML.slice(0, 80)),
  );
  assert.deepEqual(small, []);
}, { options: { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true } });

page("what the page weighs, and how soon it can be used", async ({ site, window, page }) => {
  const session = await window.newCDPSession(page);
  await session.send("Network.enable");
  let bytes = 0;
  session.on("Network.loadingFinished", ({ encodedDataLength }) => (bytes += encodedDataLength));
  await logIn(page, site);
  const loaded = bytes;
  // Everything that is not an answer of the API came with the login.
  assert.ok(loaded < 150_000, `${loaded} bytes`);
  const times = [];
  for (let round = 0; round < 5; round += 1) {
    await session.send("Network.clearBrowserCache");
    await page.goto("about:blank");
    const began = performance.now();
    await page.goto("/");
    await page.locator(".tile").first().click({ trial: true });
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  console.log(`page: ${loaded} bytes with headers and first answers; usable after ${times.map((time) => time.toFixed(0)).join(", ")} ms`);
  window.wrong = window.wrong.filter((text) => !text.includes("about:blank"));
});

page("the page is told when it changes, and nothing else is stored", async ({ site }) => {
  const { status, headers } = await fetch(`${site.url}/`);
  assert.equal(status, 200);
  const policy = headers.get("content-security-policy");
  for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]) {
    assert.ok(policy.includes(part), policy);
  }
  assert.ok(!policy.includes("unsafe"), policy);
  const again = await fetch(`${site.url}/`, { headers: { "If-None-Match": headers.get("etag") } });
  assert.equal(again.status, 304);
  const answer = await fetch(`${site.url}/api/v1/session`);
  assert.equal(answer.headers.get("cache-control"), "no-store");
  assert.deepEqual(await answer.json(), { name: null, role: null, csrf: null, version: null });
});
