// MQTT.js. Its orders are one JSON argument, as cases.py describes them.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

// From where run.sh installed it.
const mqtt = createRequire(process.env.INTEROP_NODE_MODULES + "/")("mqtt");
const orders = JSON.parse(process.argv[2]);
const topic = orders.topic;
const v5 = orders.version === 5;
const TAGO = "tago/data/post";
const PATIENCE = 30_000;

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in time`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Messages of one client, or of a group, to be waited for one by one.
class Messages {
  waiting = [];
  arrived = [];
  put(message) {
    const next = this.waiting.shift();
    if (next) next(message);
    else this.arrived.push(message);
  }
  next() {
    if (this.arrived.length) return Promise.resolve(this.arrived.shift());
    return within(new Promise((resolve) => this.waiting.push(resolve)), "message");
  }
}

// A device with a certificate needs no more.
function login(who, password) {
  if (who === "user") return { username: orders.user.name, password: password ?? orders.user.password };
  return orders.cert ? {} : { username: "Token", password: orders.device.token };
}

// Connects, or throws what the broker said.
async function client(name, { who = "user", password, clean = true, will, messages = new Messages() } = {}) {
  const scheme = orders.websocket ? (orders.tls ? "wss" : "ws") : orders.tls ? "mqtts" : "mqtt";
  const path = orders.websocket ? "/mqtt" : "";
  const read = (file) => (file ? readFileSync(file) : undefined);
  const opened = mqtt.connect(`${scheme}://${orders.host}:${orders.port}${path}`, {
    clientId: `${topic}-${name}`.replaceAll("/", "-"),
    ...login(who, password),
    protocolVersion: orders.version,
    clean,
    properties: v5 && !clean ? { sessionExpiryInterval: 60 } : undefined,
    will: will && { topic: `${topic}/will`, payload: Buffer.from(will), qos: 1 },
    reconnectPeriod: 0,
    ca: read(orders.ca),
    cert: read(orders.cert),
    key: read(orders.key),
    rejectUnauthorized: true,
  });
  opened.on("message", (on, payload, packet) => {
    messages.put({ topic: on, payload: payload.toString(), qos: packet.qos, retain: packet.retain });
  });
  opened.next = () => messages.next();
  const answer = new Promise((resolve, reject) => {
    opened.once("connect", resolve);
    opened.once("error", reject);
    opened.once("close", () => reject(new Error("closed")));
  });
  try {
    opened.present = (await within(answer, "CONNACK")).sessionPresent;
  } catch (error) {
    opened.end(true);
    throw error;
  }
  opened.on("error", () => {});
  return opened;
}

async function a_wrong_password_is_refused() {
  // Or told to wait: the other transports have failed from this address before.
  const refused = /not authori|password|unavailable|busy/i;
  await assert.rejects(client("stranger", { password: "not this one" }), refused);
}

async function each_qos_makes_the_round() {
  const one = await client("round");
  await one.subscribeAsync(`${topic}/round`, { qos: 2 });
  for (const qos of [0, 1, 2]) {
    await one.publishAsync(`${topic}/round`, `at ${qos}`, { qos });
    const message = await one.next();
    assert.deepEqual([message.payload, message.qos], [`at ${qos}`, qos]);
  }
  await one.endAsync();
}

async function a_retained_message_waits() {
  const [keeper, late, later] = await Promise.all(["keeper", "late", "later"].map((name) => client(name)));
  await keeper.publishAsync(`${topic}/kept`, "kept", { qos: 1, retain: true });
  await late.subscribeAsync(`${topic}/kept`, { qos: 1 });
  const message = await late.next();
  assert.deepEqual([message.payload, message.retain], ["kept", true]);
  await keeper.publishAsync(`${topic}/kept`, "", { qos: 1, retain: true });
  await later.subscribeAsync(`${topic}/+`, { qos: 1 });
  await keeper.publishAsync(`${topic}/other`, "other", { qos: 1 });
  assert.equal((await later.next()).payload, "other", "what was cleared is not sent");
  await Promise.all([keeper, late, later].map((one) => one.endAsync()));
}

async function a_will_is_sent_when_the_connection_breaks() {
  const watcher = await client("watcher");
  await watcher.subscribeAsync(`${topic}/will`, { qos: 1 });
  const dying = await client("dying", { will: "gone" });
  dying.stream.destroy();
  assert.equal((await watcher.next()).payload, "gone");
  await watcher.endAsync();
}

async function a_session_goes_on_where_it_was() {
  let sleeper = await client("sleeper", { clean: false });
  assert.equal(sleeper.present, false);
  await sleeper.subscribeAsync(`${topic}/asleep`, { qos: 2 });
  await sleeper.endAsync();
  const writer = await client("writer");
  for (let number = 0; number < 5; number++) {
    await writer.publishAsync(`${topic}/asleep`, `${number}`, { qos: 1 + (number % 2) });
  }
  const messages = new Messages();
  sleeper = await client("sleeper", { clean: false, messages });
  assert.equal(sleeper.present, true);
  const got = [];
  while (got.length < 5) got.push((await messages.next()).payload);
  assert.deepEqual(got.sort(), ["0", "1", "2", "3", "4"]);
  await Promise.all([sleeper, writer].map((one) => one.endAsync()));
}

async function a_group_shares_its_messages() {
  const messages = new Messages();
  const [one, two, source] = await Promise.all(["one", "two", "source"].map((name) => client(name, { messages })));
  for (const member of [one, two]) {
    await member.subscribeAsync(`$share/${topic.replaceAll("/", "-")}/${topic}/work`, { qos: 1 });
  }
  const expected = Array.from({ length: 20 }, (_, number) => `${number}`);
  for (const payload of expected) await source.publishAsync(`${topic}/work`, payload, { qos: 1 });
  const got = [];
  while (got.length < expected.length) got.push((await messages.next()).payload);
  assert.deepEqual(got.sort(), expected.sort());
  assert.equal(messages.arrived.length, 0);
  await Promise.all([one, two, source].map((each) => each.endAsync()));
}

async function firmware_arrives_byte_for_byte() {
  const device = await client("device", { who: "device" });
  const ask = (index) =>
    device.publishAsync(TAGO, JSON.stringify({ variable: "firmware_request", value: index, unit: "index" }));
  await device.subscribeAsync(TAGO, { qos: 1 });
  let manifest, image;
  do {
    const said = JSON.parse((await device.next()).payload);
    if (said.variable === "firmware_manifest") {
      [manifest, image] = [said.metadata, Buffer.alloc(0)];
      await ask(0);
    } else {
      assert.equal(said.variable, "firmware_block");
      image = Buffer.concat([image, Buffer.from(said.metadata.data, "base64")]);
      if (image.length < manifest.total_size) await ask(said.value + 1);
    }
  } while (image.length < manifest.total_size);
  const digest = createHash("sha256").update(image).digest("hex");
  assert.deepEqual([digest, digest], [manifest.sha256, orders.digest]);
  await device.endAsync();
}

let failed = 0;
for (const scenario of orders.cert
  ? [firmware_arrives_byte_for_byte]
  : [
      a_wrong_password_is_refused,
      each_qos_makes_the_round,
      a_retained_message_waits,
      a_will_is_sent_when_the_connection_breaks,
      a_session_goes_on_where_it_was,
      a_group_shares_its_messages,
      firmware_arrives_byte_for_byte,
    ]) {
  try {
    await scenario();
    console.log(`${scenario.name} ... ok`);
  } catch (error) {
    failed += 1;
    console.log(`${scenario.name} ... FAILED: ${error.message}`);
    console.log(error.stack);
  }
}
process.exit(failed ? 1 : 0);
