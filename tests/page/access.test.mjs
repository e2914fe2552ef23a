// Who is let in, what a page of somebody else may do, and names that are scripts.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { logIn } from "./browser.mjs";
import { browser, choose, page, row, settled } from "./page.mjs";
import { Site, eventually, image } from "./site.mjs";

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
