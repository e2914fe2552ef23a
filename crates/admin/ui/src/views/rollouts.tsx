// The rollouts, the newest first.

import { address } from "../api";
import { useData } from "../data";
import { State, Time } from "../parts/basic";
import { Shares } from "../parts/chart";
import { FreezeButton } from "../parts/freeze";
import { type Column, Listing } from "../parts/table";
import { TargetText } from "../parts/target";
import { filter, route, to } from "../route";
import type { Deployment } from "../types";
import { name } from "./rollout-card";

const COLUMNS: Column<Deployment>[] = [
  {
    name: "Rollout",
    cell: (one) => (
      <>
        <a href={to(["rollouts", one.id])}>{name(one)}</a>
        <span class="muted sub">
          #{one.id} to <TargetText target={one.target} />
        </span>
      </>
    ),
  },
  {
    name: "State",
    cell: (one) => (
      <>
        <State name={one.state} />
        {one.reason && <span class="muted sub">{one.reason}</span>}
      </>
    ),
  },
  {
    name: "Devices",
    cell: (one) => <Shares counts={one.counts} label={`Devices of rollout ${one.id} by state`} />,
  },
  {
    name: "Since",
    cell: (one) => (
      <>
        <Time at={one.created} />
        <span class="muted sub">{one.created_by}</span>
      </>
    ),
  },
];

export function Rollouts() {
  const { state, after } = route.value.query;
  const data = useData<{ deployments: Deployment[]; next: string | null }>(
    address(["deployments"], { state, after, limit: 30 }),
    { on: (change) => change.type !== "firmware", every: () => 15_000 },
  );
  return (
    <>
      <header class="title">
        <h1>Rollouts</h1>
        <div class="actions">
          <FreezeButton />
        </div>
      </header>
      <form class="filters" onSubmit={(event) => event.preventDefault()}>
        <select
          aria-label="State of the rollout"
          value={state ?? ""}
          onChange={(event) => filter({ state: event.currentTarget.value })}
        >
          <option value="">any state</option>
          {["held", "running", "paused", "cancelled", "ended"].map((state) => (
            <option key={state} value={state}>
              {state}
            </option>
          ))}
        </select>
      </form>
      <Listing
        label="Rollouts"
        data={data}
        rows={(page) => page.deployments}
        columns={COLUMNS}
        id={(one) => one.id}
        empty={state ? `No rollout is ${state}.` : "There was no rollout yet."}
      />
    </>
  );
}
