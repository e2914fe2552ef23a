// One file: what it is, where that is known from, who has it.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { address, may, send } from "../api";
import { useData } from "../data";
import * as format from "../format";
import { Ask, Button, Callout, Copy, Facts, Failure, Loading, State, Time } from "../parts/basic";
import { Icon } from "../parts/icon";
import { type Column, Listing } from "../parts/table";
import { route, to } from "../route";
import { act } from "../toast";
import { type Decided, type Device, type Firmware, warnings } from "../types";

function decided(one: Decided | null): ComponentChildren {
  return one && (
    <>
      {one.value} <span class="muted">from the {one.from}</span>
    </>
  );
}

const BAD = ["refused", "conflict", "withdrawn"];

/** What is shown in a way of its own; all else that the daemon found out stands below it. */
const KNOWN = new Set([
  "id", "path", "state", "reason", "title", "version", "model", "min_version", "notes", "target",
  "deployments", "digest", "size", "created", "warnings", "format", "chip", "hardware",
  "security_counter", "signature", "dropped_digest",
]);

function Signature({ file }: { file: Firmware }) {
  const { signature } = file;
  if (!signature) return <span class="muted">not looked at</span>;
  const { state, key, embedded } = signature;
  const text =
    state === "trusted"
      ? "signed by a trusted key"
      : state === "unknown"
        ? "signed by a key that is not trusted"
        : "not signed";
  return (
    <>
      <span class={`state ${state === "trusted" ? "good" : state === "unknown" ? "warn" : "off"}`}>{text}</span>
      {key && (
        <>
          {" "}
          <code>{key}</code>
        </>
      )}
      {embedded && <span class="muted sub">The image carries one for the device to check.</span>}
    </>
  );
}

function Digest({ digest }: { digest: string }) {
  return (
    <span class="digest">
      <code>{digest}</code>
      <Copy text={digest} what="Digest" />
    </span>
  );
}

/** What is worth a look, at the top of what shows a file. */
export function Warnings({ file }: { file: Firmware }) {
  return (
    <>
      {warnings(file).map((text) => (
        <Callout key={text} tone={BAD.includes(file.state) ? "bad" : "warn"} icon="warning">
          <p>{text}</p>
        </Callout>
      ))}
    </>
  );
}

function found(value: unknown): ComponentChildren {
  if (value === null || value === undefined || value === "") return null;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "object") return String(value);
  if (Array.isArray(value)) return value.length === 0 ? null : value.map(found).map((one, index) => <div key={index}>{one}</div>);
  const one = value as Record<string, unknown>;
  if (typeof one["value"] === "string" && typeof one["from"] === "string") {
    return decided(one as unknown as Decided);
  }
  return Object.entries(one)
    .filter(([, inner]) => inner !== null)
    .map(([name, inner]) => (
      <div key={name}>
        <span class="muted">{format.words(name)}</span> {found(inner)}
      </div>
    ));
}

/** What the server recognised in a file. */
export function Recognised({ file }: { file: Firmware }) {
  const more = Object.entries(file)
    .filter(([name]) => !KNOWN.has(name))
    .map(([name, value]): [string, ComponentChildren] => {
      const words = format.words(name);
      return [words.charAt(0).toUpperCase() + words.slice(1), found(value)];
    })
    .filter(([, value]) => value !== null);
  return (
    <Facts
      rows={[
        ["Title", decided(file.title)],
        ["Version", decided(file.version)],
        ["Model", decided(file.model)],
        ["Format", file.format],
        ...(file.chip ? [["Chip", file.chip] as [string, string]] : []),
        ...(file.hardware?.length
          ? [["Hardware", file.hardware.join(", ")] as [string, string]]
          : []),
        ...(typeof file.security_counter === "number"
          ? [["Security counter", String(file.security_counter)] as [string, string]]
          : []),
        ["Signature", <Signature file={file} />],
        ...more,
        ["Size", file.size === null ? null : format.bytes(file.size)],
        ...(file.min_version ? [["Follows at least", file.min_version] as [string, string]] : []),
        ["SHA-256", file.digest && <Digest digest={file.digest} />],
        ...(file.dropped_digest
          ? [["Of the file", <Digest digest={file.dropped_digest} />] as [string, ComponentChildren]]
          : []),
        ...(file.notes ? [["Notes", <span class="notes">{file.notes}</span>] as [string, ComponentChildren]] : []),
      ]}
    />
  );
}

const COLUMNS: Column<Device>[] = [
  { name: "Device", cell: (device) => <a href={to(["devices", device.id])}>{device.id}</a> },
  { name: "State", cell: (device) => <State name={device.state} /> },
  { name: "Runs", cell: (device) => device.version ?? <span class="muted">–</span> },
  { name: "Last seen", cell: (device) => <Time at={device.last_seen} /> },
];

export function FirmwarePage({ id }: { id: string }) {
  const [asked, setAsked] = useState(false);
  const data = useData<Firmware>(address(["firmware", id]), {
    on: (change) => change.type !== "device",
    every: () => 15_000,
  });
  const file = data.value;
  const devices = useData<{ devices: Device[]; next: string | null }>(
    file?.digest
      ? address(["devices"], { digest: file.digest, after: route.value.query["after"], limit: 50 })
      : null,
    { on: (change) => change.type === "device" },
  );
  if (!file) return data.error ? <Failure error={data.error} retry={data.reload} /> : <Loading />;
  const usable = !BAD.includes(file.state) && file.state !== "replaced";
  return (
    <>
      <p class="crumbs">
        <a href={to(["firmware"])}>Firmware</a>
      </p>
      <header class="title">
        <h1>
          {file.path} <State name={file.state} />
        </h1>
        {may.operate() && (
          <div class="actions">
            {usable && (
              <a class="button main" href={to(["deploy", file.id])}>
                <Icon name="rollouts" />
                Deploy
              </a>
            )}
            {file.digest && file.state !== "withdrawn" && (
              <Button icon="trash" onClick={() => setAsked(true)}>
                Withdraw
              </Button>
            )}
          </div>
        )}
      </header>
      <Warnings file={file} />
      <div class="columns">
        <section class="card">
          <h2>What it is</h2>
          <Recognised file={file} />
        </section>
        <section class="card">
          <h2>Where it goes</h2>
          <Facts
            rows={[
              ["From", file.path.startsWith("uploads/") ? "an upload" : "the watched directory"],
              ["For", file.target ?? "nobody by itself"],
              [
                "Rollouts",
                file.deployments.length > 0
                  ? file.deployments.map((id) => (
                      <a key={id} class="tag" href={to(["rollouts", id])}>
                        rollout {id}
                      </a>
                    ))
                  : null,
              ],
              ["Since", <Time at={file.created} />],
            ]}
          />
        </section>
      </div>
      {file.digest && (
        <section class="card">
          <h2>Who has it, or is given it</h2>
          <Listing
            label="Devices with this firmware"
            data={devices}
            rows={(page) => page.devices}
            columns={COLUMNS}
            id={(device) => device.id}
            empty="No device was offered it last."
          />
        </section>
      )}
      {asked && (
        <Ask
          title="Withdraw these bytes?"
          text="They are never offered again, under no name, and every transfer of them ends now. This cannot be undone."
          yes="Withdraw"
          onClose={() => setAsked(false)}
          onYes={() =>
            act(() => send("DELETE", address(["firmware", file.id])), "Withdrawn.").then(data.reload)
          }
        />
      )}
    </>
  );
}
