// Rollouts, from the upload to the rollback.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { logIn } from "./browser.mjs";
import { choose, page, row, toast } from "./page.mjs";
import { eventually, image } from "./site.mjs";

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
