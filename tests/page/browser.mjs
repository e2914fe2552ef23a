// Debian's Chromium, and what every test of the page does with it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { PATIENCE } from "./site.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--disable-background-networking",
      "--disable-component-update",
      "--no-first-run",
    ],
  });
}

/** A browser of its own: no cookies, no cache. What goes wrong in it is collected. */
export async function context(browser, site, options = {}) {
  const context = await browser.newContext({
    baseURL: site.url,
    viewport: { width: 1280, height: 860 },
    reducedMotion: "reduce",
    locale: "en-GB",
    timezoneId: "UTC",
    ...options,
  });
  context.setDefaultTimeout(PATIENCE);
  context.wrong = [];
  context.on("page", (page) => {
    page.on("pageerror", (error) => context.wrong.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => {
      context.wrong.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on("console", (message) => {
      const text = message.text();
      if (/Content Security Policy|TrustedTypes|Trusted Type/i.test(text)) context.wrong.push(text);
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(site.url) && !request.url().startsWith("data:")) {
        context.wrong.push(`a request to ${request.url()}`);
      }
    });
  });
  return context;
}

export async function logIn(page, site, user) {
  await page.goto("/");
  if (user) {
    await page.getByLabel("Name").fill(user.name);
    await page.getByLabel("Password").fill(user.password);
  } else {
    await page.getByText("Admin token", { exact: true }).click();
    await page.getByLabel("Admin token").last().fill(site.token);
  }
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  await page.locator(".stream.live").waitFor();
}

/** What axe finds wrong, as sentences. */
export async function axe(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }),
  );
  return violations.map(
    ({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`,
  );
}
