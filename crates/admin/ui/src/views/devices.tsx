// The devices, filtered and paged; the address is the filter.

import { address } from "../api";
import { useData } from "../data";
import { Online, State, Time } from "../parts/basic";
import { STATES } from "../parts/chart";
import { Progress } from "../parts/progress";
import { type Column, Listing } from "../parts/table";
import * as format from "../format";
import { filter, route, to } from "../route";
import type { Device, Fleet } from "../types";

const LIMIT = 50;

const COLUMNS: Column<Device>[] = [
  {
    name: "Device",
    cell: (device) => (
      <>
        <Online online={device.online} />
        <a href={to(["devices", device.id])}>{device.id}</a>
        {device.client_id && device.client_id !== device.id && (
          <span class="muted sub">{device.client_id}</span>
        )}
      </>
    ),
  },
  {
    name: "Update",
    cell: (device) => (
      <>
        <State name={device.state} />
        {device.firmware && device.state !== null && (
          <span class="muted"> {device.firmware.version}</span>
        )}
        <Progress device={device} />
      </>
    ),
  },
  { name: "Runs", cell: (device) => device.version ?? <span class="muted">–</span> },
  { name: "Model", cell: (device) => device.model ?? <span class="muted">–</span> },
  {
    name: "Groups",
    cell: (device) =>
      device.groups.length === 0 ? (
        <span class="muted">–</span>
      ) : (
        device.groups.map((group) => (
          <a key={group} class="tag" href={to(["devices"], { group })}>
            {group}
          </a>
        ))
      ),
  },
  { name: "Last seen", cell: (device) => <Time at={device.last_seen} /> },
];

export function Devices() {
  const { query } = route.value;
  const { search, state, online, group, model, version, after } = query;
  const data = useData<{ devices: Device[]; next: string | null }>(
    address(["devices"], { search, state, online, group, model, version, after, limit: LIMIT }),
    {
      on: (change) => change.type !== "firmware" && change.type !== "site",
      // Progress within a state is no event.
      every: (page) => (page?.devices.some((one) => one.state === "downloading") ? 1_000 : 15_000),
    },
  );
  return (
    <>
      <h1>Devices</h1>
      <Filters />
      <Listing
        label="Devices"
        data={data}
        rows={(page) => page.devices}
        columns={COLUMNS}
        id={(device) => device.id}
        empty={
          Object.keys(query).length > 0
            ? "No device is like that."
            : "No device is known yet. One is when it connects, or when it is registered: fuotad device add ID."
        }
      />
    </>
  );
}

function Filters() {
  const { query } = route.value;
  const fleet = useData<Fleet>(address(["fleet"])).value;
  const named = (names: Fleet["groups"] | undefined, now: string | undefined) => {
    const all = (names ?? []).map(({ name, devices }) => [name, format.count(devices)] as const);
    return now && !all.some(([name]) => name === now) ? [[now, ""] as const, ...all] : all;
  };
  return (
    <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
      <input
        type="search"
        aria-label="Search by id"
        placeholder="Search by id"
        value={query["search"] ?? ""}
        onInput={(event) => filter({ search: event.currentTarget.value })}
      />
      <select
        aria-label="Presence"
        value={query["online"] ?? ""}
        onChange={(event) => filter({ online: event.currentTarget.value })}
      >
        <option value="">online or away</option>
        <option value="true">online</option>
        <option value="false">away</option>
      </select>
      <select
        aria-label="State of the update"
        value={query["state"] ?? ""}
        onChange={(event) => filter({ state: event.currentTarget.value })}
      >
        <option value="">any state</option>
        {STATES.map((state) => (
          <option key={state} value={state}>
            {format.words(state)}
          </option>
        ))}
      </select>
      {(["group", "model"] as const).map((key) => {
        const names = named(fleet?.[`${key}s`], query[key]);
        return names.length === 0 ? null : (
          <select
            key={key}
            aria-label={key === "group" ? "Group" : "Model"}
            value={query[key] ?? ""}
            onChange={(event) => filter({ [key]: event.currentTarget.value })}
          >
            <option value="">any {key}</option>
            {names.map(([name, devices]) => (
              <option key={name} value={name}>
                {devices ? `${name} (${devices})` : name}
              </option>
            ))}
          </select>
        );
      })}
      {query["version"] && (
        <button type="button" class="tag" onClick={() => filter({ version: undefined })}>
          runs {query["version"]} ✕
        </button>
      )}
    </form>
  );
}
