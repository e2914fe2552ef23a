// One device: what it should run and why, what is under way, what happened.

import { useState } from "preact/hooks";
import { Problem, address, may, send } from "../api";
import { useData } from "../data";
import * as format from "../format";
import {
  Ask,
  Button,
  Callout,
  Copy,
  Dialog,
  Empty,
  Facts,
  Failure,
  Field,
  Loading,
  Online,
  Secret,
  State,
  Time,
} from "../parts/basic";
import { Progress } from "../parts/progress";
import { go, route, to } from "../route";
import { act, toast } from "../toast";
import type { Deployment, Device, Happening, Why } from "../types";

export function DevicePage({ id }: { id: string }) {
  const on = (change: { type: string; device?: string }) =>
    change.device === undefined ? change.type !== "firmware" : change.device === id;
  const device = useData<Device>(address(["devices", id]), {
    on,
    every: (device) => (device?.state === "downloading" ? 1_000 : 10_000),
  });
  const why = useData<Why>(address(["devices", id, "why"]), { on, every: () => 10_000 });
  if (!device.value) {
    return device.error ? <Failure error={device.error} retry={device.reload} /> : <Loading />;
  }
  const one = device.value;
  return (
    <>
      <p class="crumbs">
        <a href={to(["devices"])}>Devices</a>
      </p>
      <header class="title">
        <h1>
          <Online online={one.online} /> {one.id}
        </h1>
        <Actions device={one} why={why.value} reload={device.reload} />
      </header>
      {why.value && (
        <Callout tone="info" icon="rollouts">
          <p>
            {why.value.sentence}
            {why.value.deployment && (
              <>
                {" "}
                <a href={to(["rollouts", why.value.deployment])}>Rollout {why.value.deployment}</a>
              </>
            )}
          </p>
        </Callout>
      )}
      <div class="columns">
        <Current device={one} />
        <About device={one} />
      </div>
      <Timeline id={id} />
    </>
  );
}

function Current({ device }: { device: Device }) {
  const { firmware } = device;
  return (
    <section class="card">
      <h2>Newest update</h2>
      {!firmware ? (
        <Empty>It was offered nothing yet.</Empty>
      ) : (
        <>
          <p class="big">
            {firmware.title ?? ""} {firmware.version} <State name={device.state} />
          </p>
          <Progress device={device} />
          {device.reason && <p class="hint">{device.reason}</p>}
          <Facts
            rows={[
              [
                "Blocks",
                `${format.count(device.progress.chunks_sent)} of ${format.count(device.progress.chunks_total)}, ${format.bytes(firmware.chunk_size)} each`,
              ],
              ["Attempt", String(firmware.attempt)],
              ...(device.next_attempt
                ? [["Next attempt", `at ${format.moment(device.next_attempt)}, or later`] as [string, string]]
                : []),
              [
                "SHA-256",
                <span class="digest">
                  <code>{firmware.digest}</code>
                  <Copy text={firmware.digest} what="Digest" />
                </span>,
              ],
            ]}
          />
        </>
      )}
    </section>
  );
}

function About({ device }: { device: Device }) {
  const labels = Object.entries(device.labels);
  return (
    <section class="card">
      <h2>Device</h2>
      <Facts
        rows={[
          [
            "Runs",
            device.version === null ? (
              <span class="muted">it reports no version</span>
            ) : (
              <>
                {device.version}
                {device.version_from === "outcome" && (
                  <span class="muted"> as was given to it last; it reports none</span>
                )}
              </>
            ),
          ],
          ["Model", device.model],
          [
            "Groups",
            device.groups.length > 0
              ? device.groups.map((group) => (
                  <a key={group} class="tag" href={to(["devices"], { group })}>
                    {group}
                  </a>
                ))
              : null,
          ],
          [
            "Labels",
            labels.length > 0
              ? labels.map(([key, value]) => (
                  <span key={key} class="tag">
                    {key}={value}
                  </span>
                ))
              : null,
          ],
          ["Registered", device.registered ? "yes" : "no: it is known since it connected"],
          ["Last seen", <Time at={device.last_seen} />],
          ["Address", device.address],
          [
            "Client",
            device.client_id && (
              <a href={to(["broker", "clients", device.client_id])}>{device.client_id}</a>
            ),
          ],
          [
            "Speaks",
            [device.protocol && `MQTT ${device.protocol}`, device.dialect && `dialect ${device.dialect}`]
              .filter(Boolean)
              .join(", ") || null,
          ],
        ]}
      />
    </section>
  );
}

type Open = "edit" | "rotate" | "remove" | "cancel" | null;

function Actions(props: { device: Device; why: Why | undefined; reload: () => void }) {
  const { device, why, reload } = props;
  const [open, setOpen] = useState<Open>(null);
  const [token, setToken] = useState<string | null>(null);
  const close = () => setOpen(null);
  const url = address(["devices", device.id]);
  const deployment = useDeployment(device.id, why);
  const rollout = useData<Deployment>(deployment && address(["deployments", deployment]), {
    on: (change) => change.deployment === deployment,
  });
  // What is over offers nothing more, to nobody.
  const live = ["held", "running", "paused"].includes(rollout.value?.state ?? "");
  const over = live && ["failed", "silent", "cancelled"].includes(device.state ?? "");
  // Also one that failed and is to try again.
  const runs =
    ["offered", "downloading"].includes(device.state ?? "") || device.next_attempt !== null;
  return (
    <div class="actions">
      {may.operate() && deployment && over && (
        <Button
          icon="again"
          tone="main"
          onClick={() =>
            act(
              () => send("POST", address(["deployments", deployment, "retry"], { device: device.id })),
              `${device.id} is offered it again.`,
            ).then(reload)
          }
        >
          Offer again
        </Button>
      )}
      {may.operate() && deployment && runs && (
        <Button icon="stop" onClick={() => setOpen("cancel")}>
          Cancel
        </Button>
      )}
      {may.administer() && (
        <>
          <Button icon="edit" onClick={() => setOpen("edit")}>
            Edit
          </Button>
          {device.registered && (
            <Button icon="key" onClick={() => setOpen("rotate")}>
              New token
            </Button>
          )}
          <Button icon="trash" tone="plain" onClick={() => setOpen("remove")}>
            Remove
          </Button>
        </>
      )}
      {open === "edit" && <Edit device={device} onClose={close} reload={reload} />}
      {open === "cancel" && deployment && (
        <Ask
          title="Cancel the update?"
          text={
            <>
              Rollout {deployment} ends for {device.id} alone, and goes on for the others. It is not
              offered it any more until somebody offers it again here.
            </>
          }
          yes={`Cancel it for ${device.id}`}
          onClose={close}
          onYes={() =>
            act(
              () => send("POST", address(["deployments", deployment, "cancel"], { device: device.id })),
              `Cancelled for ${device.id}.`,
            ).then(reload)
          }
        />
      )}
      {open === "rotate" && (
        <Ask
          title="Make a new token?"
          text="The old one works until the new one has logged in, a day at most."
          yes="Make a new token"
          tone="main"
          onClose={close}
          onYes={async () => {
            try {
              setToken((await send<{ token: string }>("PATCH", url, { rotate_token: true })).token);
            } catch (error) {
              toast("danger", (error as Error).message);
            }
          }}
        />
      )}
      {token && (
        <Dialog title={`New token of ${device.id}`} onClose={() => setToken(null)}>
          <p>It is shown only here. Put it into the device.</p>
          <Secret text={token} what="Token" />
        </Dialog>
      )}
      {open === "remove" && (
        <Ask
          title={`Forget ${device.id}?`}
          text="Its token, its history and its connections end. This cannot be undone."
          yes="Forget it"
          onClose={close}
          onYes={async () => {
            if (await act(() => send("DELETE", url), `${device.id} is forgotten.`)) {
              go(to(["devices"]));
            }
          }}
        />
      )}
    </div>
  );
}

/** The deployment that the newest offer belongs to, as far as that is known. */
function useDeployment(id: string, why: Why | undefined): string | null {
  const newest = useData<{ timeline: Happening[] }>(
    address(["devices", id, "timeline"], { limit: 20 }),
    { on: (change) => change.device === id },
  );
  const found = newest.value?.timeline.find(({ deployment }) => deployment !== null);
  return found?.deployment ?? why?.deployment ?? null;
}

function Edit(props: { device: Device; onClose: () => void; reload: () => void }) {
  const { device } = props;
  const [model, setModel] = useState(device.model ?? "");
  const [groups, setGroups] = useState(device.groups.join(" "));
  const [labels, setLabels] = useState(
    Object.entries(device.labels)
      .map(([key, value]) => `${key}=${value}`)
      .join("\n"),
  );
  const [problem, setProblem] = useState<Error | null>(null);
  const save = async () => {
    const pairs = labels
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean)
      .map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string?]);
    const bare = pairs.find(([, value]) => value === undefined);
    if (bare) {
      setProblem(new Problem(422, `${bare[0]} has no value: write ${bare[0]}=VALUE`, "labels"));
      return;
    }
    try {
      await send("PATCH", address(["devices", device.id]), {
        model,
        groups: groups.split(/\s+/).filter(Boolean),
        labels: Object.fromEntries(pairs),
      });
      toast("success", `${device.id} is changed.`);
      props.reload();
      props.onClose();
    } catch (error) {
      setProblem(error as Error);
    }
  };
  const of = (field: string) =>
    problem instanceof Problem && problem.field === field ? problem.message : undefined;
  return (
    <Dialog title={`Edit ${device.id}`} onClose={props.onClose}>
      <Field label="Model" error={of("model")}>
        {(id, described) => (
          <input
            id={id}
            aria-describedby={described}
            value={model}
            onInput={(event) => setModel(event.currentTarget.value)}
          />
        )}
      </Field>
      <Field label="Groups" hint="With spaces between" error={of("groups")}>
        {(id, described) => (
          <input
            id={id}
            aria-describedby={described}
            value={groups}
            onInput={(event) => setGroups(event.currentTarget.value)}
          />
        )}
      </Field>
      <Field label="Labels" hint="One KEY=VALUE a line" error={of("labels")}>
        {(id, described) => (
          <textarea
            id={id}
            rows={4}
            aria-describedby={described}
            value={labels}
            onInput={(event) => setLabels(event.currentTarget.value)}
          />
        )}
      </Field>
      {problem && !(problem instanceof Problem && problem.field) && <Failure error={problem} />}
      <footer>
        <Button onClick={props.onClose}>Leave it</Button>
        <Button tone="main" onClick={save}>
          Save
        </Button>
      </footer>
    </Dialog>
  );
}

function Timeline({ id }: { id: string }) {
  const { query } = route.value;
  const data = useData<{ timeline: Happening[]; next: string | null }>(
    address(["devices", id, "timeline"], { after: query["before"], limit: 50 }),
    { on: (change) => change.device === id },
  );
  return (
    <section class="card">
      <h2>What happened</h2>
      {data.error && <Failure error={data.error} retry={data.reload} />}
      {data.value?.timeline.length === 0 && <Empty>Nothing yet.</Empty>}
      <ol class="timeline">
        {data.value?.timeline.map((line) => (
          <li key={line.id}>
            <Time at={line.at} />
            <div>
              <b>{format.words(line.action)}</b>{" "}
              {line.deployment && (
                <a href={to(["rollouts", line.deployment])}>rollout {line.deployment}</a>
              )}
              {line.detail && <p class="muted">{line.detail}</p>}
            </div>
          </li>
        ))}
      </ol>
      {(query["before"] || data.value?.next) && (
        <nav class="pages" aria-label="Pages of what happened">
          {query["before"] && <a href={to(["devices", id])}>Newest</a>}
          {data.value?.next && <a href={to(["devices", id], { before: data.value.next })}>Older</a>}
        </nav>
      )}
    </section>
  );
}
