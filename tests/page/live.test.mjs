// What changes is shown: in ten tabs, after a restart, in long lists.

import assert from "node:assert/strict";
import { logIn } from "./browser.mjs";
import { page, row } from "./page.mjs";
import { eventually, image } from "./site.mjs";

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
