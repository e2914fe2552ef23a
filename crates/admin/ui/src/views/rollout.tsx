// One rollout: its waves, its devices, and what can be done with it.

import { useState } from "preact/hooks";
import { address, may, send } from "../api";
import { useData } from "../data";
import * as format from "../format";
import {
  Ask,
  Button,
  Callout,
  Dialog,
  Facts,
  Failure,
  Loading,
  State,
  Time,
} from "../parts/basic";
import { OverTime, Shares } from "../parts/chart";
import type { IconName } from "../parts/icon";
import { type Column, Listing, Table } from "../parts/table";
import { TargetText } from "../parts/target";
import { route, to } from "../route";
import { toast } from "../toast";
import type { Deployment, Excluded, Member } from "../types";
import { Waves, name } from "./rollout-card";
import { Change } from "./rollout-change";

interface Acted extends Deployment {
  retried?: number;
  rollbacks?: string[];
  left?: Excluded[];
}

const COLUMNS: Column<Member>[] = [
  { name: "Device", cell: (one) => <a href={to(["devices", one.device])}>{one.device}</a> },
  {
    name: "State",
    cell: (one) => (one.state ? <State name={one.state} /> : <span class="muted">not offered</span>),
  },
  { name: "Why", cell: (one) => one.reason ?? <span class="muted">–</span> },
  { name: "Wave", cell: (one) => one.wave ?? <span class="muted">–</span>, number: true },
  { name: "Moved", cell: (one) => (one.at ? <Time at={one.at} /> : <span class="muted">–</span>) },
];

export function RolloutPage({ id }: { id: string }) {
  const on = (change: { type: string; deployment?: string }) =>
    change.type === "site" || change.deployment === id;
  const every = () => 5_000;
  const rollout = useData<Deployment>(address(["deployments", id]), { on, every });
  const history = useData<{ points: { at: number; counts: Record<string, number> }[] }>(
    address(["deployments", id, "history"]),
    { on, every },
  );
  const devices = useData<{ devices: Member[]; next: string | null }>(
    address(["deployments", id, "devices"], { after: route.value.query["after"], limit: 50 }),
    { on, every },
  );
  if (!rollout.value) {
    return rollout.error ? <Failure error={rollout.error} retry={rollout.reload} /> : <Loading />;
  }
  const one = rollout.value;
  return (
    <>
      <p class="crumbs">
        <a href={to(["rollouts"])}>Rollouts</a>
      </p>
      <header class="title">
        <h1>
          {name(one)} <State name={one.state} />
        </h1>
        <Actions
          rollout={one}
          reload={() => {
            rollout.reload();
            devices.reload();
            history.reload();
          }}
        />
      </header>
      {one.reason && (
        <Callout
          tone={one.state === "paused" || one.state === "held" ? "warn" : "info"}
          icon={one.state === "paused" ? "pause" : "warning"}
        >
          <p>{one.reason}</p>
        </Callout>
      )}
      {one.complete && one.state === "running" && (
        <Callout tone="good" icon="success">
          <p>Everybody whom it is for has an outcome. Devices that come later still get it.</p>
        </Callout>
      )}
      <div class="columns">
        <section class="card">
          <h2>Devices by state</h2>
          <Waves rollout={one} />
          <Shares counts={one.counts} label="Devices by state" />
          {history.value && <OverTime points={history.value.points} />}
        </section>
        <section class="card">
          <h2>Rollout {one.id}</h2>
          <Facts
            rows={[
              ["For", <TargetText target={one.target} />],
              [
                "Firmware",
                <a href={to(["firmware", one.firmware.id])}>{one.firmware.path}</a>,
              ],
              ["Size", format.bytes(one.firmware.size)],
              [
                "Wave",
                one.rollout.waves.length > 1
                  ? `${one.wave} of ${one.rollout.waves.length}, up to ${format.plural(one.wave_size, "device")}`
                  : "everybody at once",
              ],
              [
                "Pauses by itself",
                one.rollout.pause_at_percent === null
                  ? "never"
                  : `when ${one.rollout.pause_at_percent} % of a wave have failed or are silent`,
              ],
              ...(one.windows
                ? [["Windows", one.windows.length > 0 ? one.windows.join("; ") : "at any time"] as [string, string]]
                : []),
              ...Object.entries(one.limits ?? {}).map(([name, value]): [string, string] => [
                name === "jitter" ? "Spread over" : `At most ${format.words(name)}`,
                String(value),
              ]),
              ["Not offered yet", one.not_offered === undefined ? null : format.count(one.not_offered)],
              ["Downgrade", one.downgrade ? "allowed" : "no"],
              ["Made", <><Time at={one.created} /> by {one.created_by}</>],
            ]}
          />
        </section>
      </div>
      <section class="card">
        <h2>Devices</h2>
        <Listing
          label="Devices of the rollout"
          data={devices}
          rows={(page) => page.devices}
          columns={COLUMNS}
          id={(one) => one.device}
          empty="It is for no device that is known."
        />
      </section>
    </>
  );
}

type Act = "approve" | "pause" | "resume" | "cancel" | "retry" | "rollback";

interface Way {
  act: Act;
  text: string;
  icon: IconName;
  tone?: "main" | "bad";
  done: string;
  ask?: string;
}

/** What makes sense now; the daemon refuses the rest anyhow. */
function ways(one: Deployment): Way[] {
  const { state, wave, rollout, counts } = one;
  const all: (Way | false)[] = [
    state === "held" && {
      act: "approve",
      text: "Approve",
      icon: "play",
      tone: "main",
      done: "Approved: it is offered from now on.",
    },
    state === "running" &&
      wave < rollout.waves.length && {
        act: "approve",
        text: "Open the next wave",
        icon: "play",
        done: "The next wave is open.",
        ask: "It opens before the devices of this wave have shown that the firmware works.",
      },
    state === "running" && {
      act: "pause",
      text: "Pause",
      icon: "pause",
      done: "Paused: what runs finishes, nobody new is offered it.",
    },
    state === "paused" && {
      act: "resume",
      text: "Resume",
      icon: "play",
      tone: "main",
      done: "It goes on. The failures until now are forgiven.",
    },
    ["failed", "silent"].some((state) => (counts[state] ?? 0) > 0) &&
      state !== "cancelled" &&
      state !== "ended" && {
        act: "retry",
        text: "Retry the failed",
        icon: "again",
        done: "They are offered it again.",
      },
    ["held", "running", "paused"].includes(state) && {
      act: "cancel",
      text: "Cancel",
      icon: "stop",
      tone: "bad",
      done: "Cancelled.",
      ask: "It ends for good, with every transfer that is not complete. Devices that have the image keep it.",
    },
    state !== "held" &&
      !one.target.rollback && {
        act: "rollback",
        text: "Roll back",
        icon: "back",
        tone: "bad",
        done: "Cancelled, and rolled back.",
        ask: "It is cancelled, and every device that it reached is given what it had before, one device first.",
      },
  ];
  return all.filter((way) => way !== false);
}

function Actions({ rollout, reload }: { rollout: Deployment; reload: () => void }) {
  const [asked, setAsked] = useState<Way | null>(null);
  const [rolledBack, setRolledBack] = useState<Acted | null>(null);
  const [changing, setChanging] = useState(false);
  if (!may.operate()) return null;
  const run = async (way: Way) => {
    try {
      const acted = await send<Acted>("POST", address(["deployments", rollout.id, way.act]));
      toast(
        acted.left?.length ? "warning" : "success",
        way.act === "retry" ? `${format.plural(acted.retried ?? 0, "device")} may be offered it again.` : way.done,
      );
      if (way.act === "rollback") setRolledBack(acted);
    } catch (error) {
      toast("danger", (error as Error).message);
    }
    reload();
  };
  return (
    <div class="actions">
      {ways(rollout).map((way) => (
        <Button
          key={way.text}
          icon={way.icon}
          tone={way.tone === "main" ? "main" : undefined}
          onClick={() => (way.ask ? setAsked(way) : run(way))}
        >
          {way.text}
        </Button>
      ))}
      {["held", "running", "paused"].includes(rollout.state) && (
        <Button icon="edit" onClick={() => setChanging(true)}>
          Change
        </Button>
      )}
      {changing && <Change rollout={rollout} reload={reload} onClose={() => setChanging(false)} />}
      {asked && (
        <Ask
          title={`${asked.text}?`}
          text={asked.ask}
          yes={asked.text}
          tone={asked.tone ?? "main"}
          onClose={() => setAsked(null)}
          onYes={() => run(asked)}
        />
      )}
      {rolledBack && (
        <Dialog title="Rolled back" onClose={() => setRolledBack(null)}>
          <p>
            {rolledBack.rollbacks?.length
              ? "These rollouts give devices what they had before: "
              : "No device had to be taken back."}
            {rolledBack.rollbacks?.map((id) => (
              <a key={id} class="tag" href={to(["rollouts", id])}>
                rollout {id}
              </a>
            ))}
          </p>
          {(rolledBack.left?.length ?? 0) > 0 && (
            <>
              <p>These devices cannot be taken back:</p>
              <Table
                label="Devices that cannot be taken back"
                rows={rolledBack.left ?? []}
                id={(one) => one.device}
                columns={[
                  { name: "Device", cell: (one) => one.device },
                  { name: "Why", cell: (one) => one.reason },
                ]}
              />
            </>
          )}
        </Dialog>
      )}
    </div>
  );
}
