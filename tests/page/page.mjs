// The page in a real browser, against the real daemon and devices that are not its own.
// Each test has a site of its own; they wait for what shows, and never for a time.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { context, launch } from "./browser.mjs";
import { Site } from "./site.mjs";

export let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** Runs with a site and a browser, and fails where the browser had something to complain of. */
export function page(name, run, { settings = "", options = {} } = {}) {
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

export const toast = (page, text) => page.locator(".toast").filter({ hasText: text });
export const row = (page, text) => page.getByRole("row").filter({ hasText: text });

/** Waits until all that the view reads is read. */
export async function settled(page) {
  await page.locator("main h1, main .callout.bad").first().waitFor();
  await page.waitForFunction(() => !document.querySelector("main .empty[aria-busy], main .stale"));
}

export async function choose(page, name, bytes) {
  await page.getByLabel("Firmware file").setInputFiles({
    name,
    mimeType: "application/octet-stream",
    buffer: bytes,
  });
}
