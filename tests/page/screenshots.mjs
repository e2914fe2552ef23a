// Pictures of the page for docs/page/: a small site in the middle of its day.
// Usage: FUOTAD=target/debug/fuotad node screenshots.mjs DIRECTORY

import { mkdirSync } from "node:fs";
import { context, launch, logIn } from "./browser.mjs";
import { Site, eventually, image } from "./site.mjs";

const out = process.argv[2];
mkdirSync(out, { recursive: true });
const site = await Site.start();
const browser = await launch();
try {
  const pumps = Array.from({ length: 26 }, (_, index) => ({
    id: `pump-${String(index + 1).padStart(2, "0")}`,
    groups: [`hall-${(index % 3) + 1}`],
    model: "pump-x",
    labels: { floor: String((index % 4) + 1) },
  }));
  const valves = Array.from({ length: 14 }, (_, index) => ({
    id: `valve-${String(index + 1).padStart(2, "0")}`,
    groups: ["hall-2"],
    model: "valve-v2",
  }));
  await site.devices(pumps.slice(0, 22), ["--report", "--linger=20min", "--pace=5ms"]);
  await site.api("POST", "import", { devices: pumps.slice(22) });
  site.drop("models/pump-x/pump-1.4.2.bin", image(120_000));
  await eventually("the pumps are updated", async () =>
    (await site.api("GET", "devices?state=updated&limit=100")).devices.length === 22);
  site.drop("models/valve-v2/valve-2.0.0.bin", image(420_000));
  await site.devices(valves.slice(0, 5), ["--report", "--linger=20min", "--pace=5ms"]);
  await eventually("valves are updated", async () =>
    (await site.api("GET", "devices?model=valve-v2&state=updated")).devices.length === 5);
  site.drop("mystery.bin", image(30_000));
  site.drop("groups/hall-1/line/one.bin", image(3_000));
  await site.devices(valves.slice(5), ["--report", "--linger=20min", "--pace=600ms"]);
  site.drop("devices/valve-14/valve-2.1.0-rc.1.bin", image(900_000));
  const form = new FormData();
  form.set("file", new Blob([image(2_400_000)]), "pump-1.5.0.bin");
  form.set("notes", "Less noise at low speed.");
  const uploaded = await (await fetch(`${site.url}/api/v1/firmware`, {
    method: "POST", body: form, headers: { Authorization: `Bearer ${site.token}` },
  })).json();
  const made = await site.api("POST", "deployments", {
    firmware: uploaded.id,
    target: { group: "hall-3" },
    rollout: { waves: [{ count: 1 }, { percent: 25 }, { percent: 100 }], pause_at_percent: 5 },
  });
  await eventually("it is under way", async () =>
    (await site.api("GET", `deployments/${made.id}`)).counts.offered >= 0);
  const shots = async (name, options, places) => {
    const window = await context(browser, site, options);
    const page = await window.newPage();
    await logIn(page, site);
    for (const [file, place, before] of places) {
      await page.goto(`/${place}`);
      await page.locator("main h1").waitFor();
      await page.waitForFunction(() => !document.querySelector("main .empty[aria-busy], main .stale"));
      await before?.(page);
      // Rates need two looks.
      await page.waitForTimeout(2500);
      await page.screenshot({ path: `${out}/${file}-${name}.png` });
    }
    await window.close();
  };
  const plan = async (page) => {
    await page.getByLabel("A group").check();
    await page.getByLabel("Group", { exact: true }).fill("hall-1");
    await page.getByRole("button", { name: "See the plan" }).click();
    await page.getByRole("heading", { name: "Plan" }).waitFor();
  };
  const wide = [
    ["overview", "#/"],
    ["devices", "#/devices?online=true&search=valve"],
    ["device", "#/devices/valve-14"],
    ["rollout", "#/rollouts/2"],
    ["firmware", "#/firmware"],
    ["deploy", `#/deploy/${uploaded.id}`, plan],
    ["broker", "#/broker"],
  ];
  await shots("light", { viewport: { width: 1280, height: 900 } }, wide);
  await shots("dark", { viewport: { width: 1280, height: 900 }, colorScheme: "dark" }, [wide[3]]);
  await shots("phone", { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 1 },
    [wide[0], wide[1]]);
  const window = await context(browser, site, { viewport: { width: 1280, height: 800 } });
  const page = await window.newPage();
  await page.goto("/");
  await page.getByRole("button", { name: "Log in" }).waitFor();
  await page.screenshot({ path: `${out}/login-light.png` });
} finally {
  await browser.close();
  await site.close();
}
