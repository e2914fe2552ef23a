// What an operator wants to know at a glance.

import type { ComponentChildren } from "preact";
import { address } from "../api";
import { useData } from "../data";
import * as format from "../format";
import { Callout, Empty, Failure, Loading } from "../parts/basic";
import { Shares } from "../parts/chart";
import { FreezeButton } from "../parts/freeze";
import { Icon, type IconName } from "../parts/icon";
import { to } from "../route";
import type { Deployment, Firmware, Fleet, Status } from "../types";
import { RolloutCard } from "./rollout-card";

export function Overview() {
  const status = useData<Status>(address(["status"]), {
    on: () => true,
    every: () => 3_000,
  });
  const fleet = useData<Fleet>(address(["fleet"]), { on: () => true, every: () => 15_000 });
  if (!status.value || !fleet.value) {
    const error = status.error ?? fleet.error;
    return error ? <Failure error={error} retry={status.reload} /> : <Loading />;
  }
  const { fuota, broker, checks } = status.value;
  const problems = checks.filter(({ ok }) => !ok);
  return (
    <>
      <header class="title">
        <h1>Overview</h1>
        <div class="actions">
          <FreezeButton />
        </div>
      </header>
      {problems.map(({ name, reason }) => (
        <Callout key={name} tone="bad" icon="danger">
          <p>
            <b>{name}</b> is not up: {reason}
          </p>
        </Callout>
      ))}
      {fuota.clock_problem && (
        <Callout tone="warn" icon="warning">
          <p>{fuota.clock_problem}</p>
        </Callout>
      )}
      {fuota.window_closed && (
        <Callout tone="info" icon="pause">
          <p>{fuota.window_closed}</p>
        </Callout>
      )}
      <section class="tiles" aria-label="At a glance">
        <Tile
          name="Devices online"
          link={to(["devices"], { online: "true" })}
          value={format.count(fuota.devices.online)}
          more={`of ${format.count(fuota.devices.total)}`}
        />
        <Tile
          name="Downloading now"
          link={to(["devices"], { state: "downloading" })}
          value={format.count(fuota.states["downloading"] ?? 0)}
          more={`${format.bytes(fuota.block_bytes)} sent`}
        />
        <Tile
          name="Rollouts running"
          link={to(["rollouts"], { state: "running" })}
          value={format.count(fleet.value.deployments["running"] ?? 0)}
          more={`${format.count(fleet.value.deployments["paused"] ?? 0)} paused`}
        />
        <Tile
          name="Broker clients"
          link={to(["broker"])}
          value={format.count(broker["connections"] ?? 0)}
          more={`${format.count(broker["dropped"] ?? 0)} messages dropped`}
        />
      </section>
      <div class="columns">
        <Waiting status={status.value} fleet={fleet.value} />
        <Versions fleet={fleet.value} />
      </div>
      <Running />
      <section class="card">
        <h2>Devices by the state of their newest update</h2>
        <Shares counts={fuota.states} label="Devices by state" />
      </section>
      <p class="muted">
        Up for {format.duration(status.value.uptime_seconds)}.{" "}
        {checks.map(({ name, ok }) => `${name} ${ok ? "well" : "not up"}`).join(", ")}.
      </p>
    </>
  );
}

function Tile(props: { name: string; value: string; more: string; link: string }) {
  return (
    <a class="tile" href={props.link}>
      <span class="name">{props.name}</span>
      <span class="value">{props.value}</span>
      <span class="muted">{props.more}</span>
    </a>
  );
}

interface Item {
  icon: IconName;
  tone: "warn" | "bad";
  link: string;
  text: ComponentChildren;
  key: string;
}

/** What goes on only when a person does something. */
function Waiting({ status, fleet }: { status: Status; fleet: Fleet }) {
  const { states, firmware } = status.fuota;
  const any = (fleet.deployments["held"] ?? 0) + (fleet.deployments["paused"] ?? 0) > 0;
  const on = { on: () => true };
  const held = useData<{ deployments: Deployment[] }>(
    any ? address(["deployments"], { state: "held", limit: 5 }) : null,
    on,
  );
  const paused = useData<{ deployments: Deployment[] }>(
    any ? address(["deployments"], { state: "paused", limit: 5 }) : null,
    on,
  );
  const items: Item[] = [];
  const rollouts = any
    ? [...(paused.value?.deployments ?? []), ...(held.value?.deployments ?? [])]
    : [];
  for (const one of rollouts) {
    items.push({
      key: `rollout ${one.id}`,
      icon: one.state === "paused" ? "pause" : "stop",
      tone: "warn",
      link: to(["rollouts", one.id]),
      text: (
        <>
          Rollout {one.id} of {one.firmware.title ?? one.firmware.path} {one.firmware.version} is{" "}
          {one.state}
          {one.reason ? `: ${one.reason}` : ""}
        </>
      ),
    });
  }
  const devices: [string, "warn" | "bad", string][] = [
    ["failed", "bad", "failed to update"],
    ["silent", "warn", "fell silent in an update, or after it"],
  ];
  for (const [state, tone, text] of devices) {
    const number = states[state] ?? 0;
    if (number > 0) {
      items.push({
        key: state,
        icon: "warning",
        tone,
        link: to(["devices"], { state }),
        text: `${format.plural(number, "device")} ${text}`,
      });
    }
  }
  for (const state of ["held", "conflict", "refused"]) {
    const number = firmware[state] ?? 0;
    if (number > 0) {
      items.push({
        key: `files ${state}`,
        icon: "firmware",
        tone: state === "refused" ? "bad" : "warn",
        link: to(["firmware"], { state }),
        text: `${format.plural(number, "file")} ${state === "conflict" ? "in conflict" : state}`,
      });
    }
  }
  return (
    <section class="card">
      <h2>Waits for somebody</h2>
      {items.length === 0 ? (
        <Empty>
          <Icon name="success" /> Nothing waits.
        </Empty>
      ) : (
        <ul class="items">
          {items.map(({ key, icon, tone, link, text }) => (
            <li key={key} class={tone}>
              <Icon name={icon} />
              <a href={link}>{text}</a>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}

const SHOWN = 8;

function Versions({ fleet }: { fleet: Fleet }) {
  const shown = fleet.versions.slice(0, SHOWN);
  const rest =
    fleet.versions.slice(SHOWN).reduce((sum, one) => sum + one.devices, 0) + fleet.other_versions;
  const most = Math.max(1, ...shown.map(({ devices }) => devices), rest);
  return (
    <section class="card">
      <h2>Versions in the field</h2>
      {shown.length === 0 ? (
        <Empty>No device is known yet.</Empty>
      ) : (
        <ul class="bars">
          {shown.map(({ title, version, devices, online }) => (
            <li key={`${title} ${version}`}>
              <span class="name">
                {version === null ? (
                  <span class="muted">not known</span>
                ) : (
                  <a href={to(["devices"], { version })}>
                    {title ? `${title} ` : ""}
                    {version}
                  </a>
                )}
              </span>
              <span class="track">
                <span style={{ width: `${(devices / most) * 100}%` }} />
              </span>
              <span class="number" title={`${format.count(online)} online`}>
                {format.count(devices)}
              </span>
            </li>
          ))}
          {rest > 0 && (
            <li>
              <span class="name muted">others</span>
              <span class="track">
                <span style={{ width: `${(rest / most) * 100}%` }} />
              </span>
              <span class="number">{format.count(rest)}</span>
            </li>
          )}
        </ul>
      )}
    </section>
  );
}

function Running() {
  const running = useData<{ deployments: Deployment[] }>(
    address(["deployments"], { state: "running", limit: 6 }),
    { on: (change) => change.type !== "firmware", every: () => 10_000 },
  );
  const rollouts = running.value?.deployments ?? [];
  const files = useData<{ firmware: Firmware[] }>(
    rollouts.length === 0 ? address(["firmware"], { limit: 1 }) : null,
    { on: (change) => change.type === "firmware" },
  );
  return (
    <section>
      <h2>Running rollouts</h2>
      {rollouts.length === 0 && running.value && (
        <Empty>
          {files.value?.firmware.length === 0 ? (
            <>
              There is no firmware yet. <a href={to(["upload"])}>Upload a file</a>, or drop one into
              the watched directory.
            </>
          ) : (
            "None runs."
          )}
        </Empty>
      )}
      <div class="cards">
        {rollouts.map((one) => (
          <RolloutCard key={one.id} rollout={one} />
        ))}
      </div>
    </section>
  );
}
