// For everybody: with a screen reader, a keyboard, a phone, a slow line.

import assert from "node:assert/strict";
import { axe, logIn } from "./browser.mjs";
import { page, row, settled, toast } from "./page.mjs";
import { eventually, image } from "./site.mjs";

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
