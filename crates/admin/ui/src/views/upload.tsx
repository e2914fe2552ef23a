// From a file to a rollout: choose, see what it is, for whom, see the plan, start.

import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, Unreachable, address, send, upload } from "../api";
import { useData } from "../data";
import * as format from "../format";
import { Bar, Button, Failure, Field, Loading, State } from "../parts/basic";
import { Icon } from "../parts/icon";
import { Table } from "../parts/table";
import { Choose } from "../parts/target";
import { go, route, to } from "../route";
import { toast } from "../toast";
import { type Deployment, type Firmware, type Plan, type Target, warnings } from "../types";
import { Recognised, Warnings } from "./firmware-page";

const TEXTS = [
  ["name", "Title"],
  ["version", "Version"],
  ["model", "Model"],
] as const;

/** How the name of a signature ends, as minisign makes it. */
const SIGNATURE = ".minisig";

export function Upload() {
  const [file, setFile] = useState<File | null>(null);
  const [signature, setSignature] = useState<File | null>(null);
  const [texts, setTexts] = useState<Record<string, string>>({});
  const [over, setOver] = useState(false);
  const [share, setShare] = useState<number | null>(null);
  const [problem, setProblem] = useState<Error | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const stop = useRef<(() => void) | null>(null);
  useEffect(() => () => stop.current?.(), []);

  const choose = (files: FileList | null | undefined) => {
    const all = [...(files ?? [])];
    const isSignature = ({ name }: File) => name.endsWith(SIGNATURE);
    const images = all.filter((file) => !isSignature(file));
    if (images.length > 1) toast("warning", "Only the first file is taken: one at a time.");
    const [image, minisig] = [images[0], all.find(isSignature)];
    if (!image && !minisig) return;
    setProblem(null);
    // A signature comes with its file, or is added to it.
    if (image) setFile(image);
    if (image || minisig) setSignature(minisig ?? null);
  };
  const start = async () => {
    if (!file) return;
    const form = new FormData();
    for (const [name] of TEXTS) if (texts[name]?.trim()) form.set(name, texts[name].trim());
    if (signature) form.set("signature", await signature.text());
    // Last, so that a mistake in the others shows before many bytes have travelled.
    form.set("file", file, file.name);
    setProblem(null);
    setShare(0);
    const sending = upload<Firmware>(address(["firmware"]), form, setShare);
    stop.current = sending.cancel;
    try {
      const found = await sending.done;
      const odd = warnings(found);
      for (const text of odd) toast("warning", text);
      if (odd.length === 0) toast("success", `${file.name} is uploaded. Nobody gets it before you say who.`);
      go(to(["deploy", found.id]));
    } catch (error) {
      if (error instanceof DOMException) {
        toast("warning", "The upload was stopped; nothing of it is kept.");
      } else {
        const text =
          error instanceof Unreachable
            ? "The upload broke off: the broker closed the connection. The file may be too large (store.max_size), or the network failed. Nothing of it is kept."
            : (error as Error).message;
        setProblem(error instanceof Problem ? error : new Error(text));
        toast("danger", text);
      }
    } finally {
      stop.current = null;
      setShare(null);
    }
  };
  const of = (field: string) =>
    problem instanceof Problem && problem.field === field ? problem.message : undefined;

  return (
    <>
      <h1>Upload</h1>
      <Steps now={1} />
      <section
        class={`drop ${over ? "over" : ""}`}
        aria-label="The file"
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          choose(event.dataTransfer?.files);
        }}
      >
        <Icon name="upload" />
        {file ? (
          <p class="big">
            {file.name} <span class="muted">{format.bytes(file.size)}</span>
          </p>
        ) : (
          <p class="big">Drop a firmware file here</p>
        )}
        <p class="muted">
          {signature
            ? `with the signature ${signature.name}`
            : `and its signature (FILE${SIGNATURE}), where it has one`}
        </p>
        <input
          ref={input}
          class="hidden"
          type="file"
          multiple
          id="file"
          tabIndex={-1}
          aria-label="Firmware file"
          onChange={(event) => choose(event.currentTarget.files)}
        />
        <Button onClick={() => input.current?.click()}>
          {file ? "Choose another" : "Choose a file"}
        </Button>
      </section>
      {file && (
        <section class="card">
          <h2>What the file name does not say</h2>
          <div class="row">
            {TEXTS.map(([name, label]) => (
              <Field key={name} label={label} error={of(name)} hint="Empty: as the file says">
                {(id, described) => (
                  <input
                    id={id}
                    aria-describedby={described}
                    value={texts[name] ?? ""}
                    autocomplete="off"
                    spellcheck={false}
                    onInput={(event) => setTexts({ ...texts, [name]: event.currentTarget.value })}
                  />
                )}
              </Field>
            ))}
          </div>
          {problem && <Failure error={problem} />}
          {share === null ? (
            <footer>
              <Button tone="main" icon="upload" onClick={() => void start()}>
                Upload and inspect
              </Button>
            </footer>
          ) : (
            <div class="progress">
              <Bar part={share} whole={1} label={`Upload of ${file.name}`} />
              <span>{share < 1 ? `${format.percent(share, 1)} %` : "The server inspects it…"}</span>
              <Button onClick={() => stop.current?.()}>Stop</Button>
            </div>
          )}
        </section>
      )}
    </>
  );
}

const STEPS = ["File", "What it is and for whom", "Plan", "Rollout"];

function Steps({ now }: { now: number }) {
  return (
    <ol class="steps" aria-label="Steps">
      {STEPS.map((text, index) => (
        <li
          key={text}
          class={index + 1 < now ? "done" : index + 1 === now ? "current" : ""}
          aria-current={index + 1 === now ? "step" : undefined}
        >
          {text}
        </li>
      ))}
    </ol>
  );
}

type How = "default" | "canary" | "all" | "waves";

export function Deploy({ id }: { id: string }) {
  const file = useData<Firmware>(address(["firmware", id]), {
    on: (change) => change.type === "firmware",
  });
  const [target, setTarget] = useState<Target | null>(() => given(route.value.query));
  const [how, setHow] = useState<How>("default");
  const [waves, setWaves] = useState("1, 10%, 100%");
  const [downgrade, setDowngrade] = useState(false);
  const [plan, setPlan] = useState<Plan | null>(null);
  const [problem, setProblem] = useState<Error | null>(null);
  // One plan is one deployment, however often it is started or the answer is lost.
  const key = useRef("");
  if (!file.value) return file.error ? <Failure error={file.error} retry={file.reload} /> : <Loading />;

  const changed = <T,>(set: (value: T) => void) => (value: T) => {
    set(value);
    setPlan(null);
    setProblem(null);
  };
  const request = () => ({
    firmware: id,
    target,
    ...(how === "default" ? {} : { rollout: how === "waves" ? parse(waves) : how }),
    ...(downgrade ? { downgrade } : {}),
  });
  const ask = async () => {
    try {
      setPlan(await send<Plan>("POST", address(["deployments"], { dry_run: true }), request()));
      setProblem(null);
      key.current = random();
    } catch (error) {
      setProblem(error as Error);
      toast("danger", (error as Error).message);
    }
  };
  const start = async () => {
    try {
      const made = await send<Deployment>("POST", address(["deployments"]), request(), {
        "Idempotency-Key": key.current,
      });
      toast("success", `Rollout ${made.id} is ${made.state}.`);
      go(to(["rollouts", made.id]));
    } catch (error) {
      setProblem(error as Error);
      toast("danger", (error as Error).message);
    }
  };
  const field = problem instanceof Problem ? problem.field : undefined;
  return (
    <>
      <p class="crumbs">
        <a href={to(["firmware"])}>Firmware</a> / <a href={to(["firmware", id])}>{file.value.path}</a>
      </p>
      <h1>Deploy</h1>
      <Steps now={plan ? 3 : 2} />
      <Warnings file={file.value} />
      <div class="columns">
        <section class="card">
          <h2>
            What it is <State name={file.value.state} />
          </h2>
          <Recognised file={file.value} />
        </section>
        <section class="card">
          <h2>For whom and how</h2>
          <Choose
            start={target}
            onChange={changed(setTarget)}
            error={field === "target" ? problem?.message : undefined}
          />
          <Field label="How it spreads" hint="It pauses by itself when devices fail or fall silent.">
            {(id, described) => (
              <select
                id={id}
                aria-describedby={described}
                value={how}
                onChange={(event) => changed(setHow)(event.currentTarget.value as How)}
              >
                <option value="default">as this site does it</option>
                <option value="canary">one device, then 10 %, then all</option>
                <option value="all">everybody at once</option>
                <option value="waves">in waves of my own</option>
              </select>
            )}
          </Field>
          {how === "waves" && (
            <Field
              label="Waves"
              hint="Up to how many devices each goes, the last is 100%"
              error={field === "rollout" ? problem?.message : undefined}
            >
              {(id, described) => (
                <input
                  id={id}
                  aria-describedby={described}
                  value={waves}
                  onInput={(event) => changed(setWaves)(event.currentTarget.value)}
                />
              )}
            </Field>
          )}
          <label class="choice">
            <input
              type="checkbox"
              checked={downgrade}
              onChange={(event) => changed(setDowngrade)(event.currentTarget.checked)}
            />
            Also to devices that run a higher version, or had it before
          </label>
          {problem && field !== "target" && field !== "rollout" && <Failure error={problem} />}
          <footer>
            <Button tone={plan ? undefined : "main"} disabled={!target} onClick={ask}>
              See the plan
            </Button>
          </footer>
        </section>
      </div>
      {plan && <PlanCard plan={plan} start={start} />}
    </>
  );
}

function random(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}

/** A target out of the address: a link from a device or a group. */
function given(query: Record<string, string>): Target | null {
  for (const kind of ["device", "group", "model", "labels"]) {
    if (query[kind]) return { [kind]: query[kind] };
  }
  return query["all"] ? { all: true } : null;
}

function parse(text: string) {
  const waves = text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map((part) =>
      part.endsWith("%") ? { percent: Number(part.slice(0, -1)) } : { count: Number(part) },
    );
  return { waves, pause_at_percent: 5 };
}

const SHOWN = 200;

function PlanCard({ plan, start }: { plan: Plan; start: () => Promise<void> }) {
  const reasons = new Map<string, string[]>();
  for (const { device, reason } of plan.excluded) {
    reasons.set(reason, [...(reasons.get(reason) ?? []), device]);
  }
  const nobody = plan.devices.length === 0;
  return (
    <section class="card" aria-live="polite">
      <h2>Plan</h2>
      <p class="big">
        {nobody ? "No device that is known would get it now." : `${format.plural(plan.devices.length, "device")} would get it`}
        {!nobody && (
          <span class="muted">
            {" "}
            · {format.bytes(plan.bytes)} in all ·{" "}
            {plan.seconds === null
              ? "how long is not known before the first transfer"
              : `about ${format.duration(plan.seconds)} for one`}
          </span>
        )}
      </p>
      {plan.waves.length > 1 && !nobody && (
        <ol class="waves" aria-label="Waves">
          {plan.waves.map((size, index) => (
            <li key={index}>{format.plural(size, "device")}</li>
          ))}
        </ol>
      )}
      {!nobody && (
        <details>
          <summary>Who</summary>
          <p class="names">
            {plan.devices.slice(0, SHOWN).map((device) => (
              <a key={device} class="tag" href={to(["devices", device])}>
                {device}
              </a>
            ))}
            {plan.devices.length > SHOWN && ` and ${format.count(plan.devices.length - SHOWN)} more`}
          </p>
        </details>
      )}
      {plan.excluded.length > 0 && (
        <details open>
          <summary>{format.plural(plan.excluded.length, "device")} would not</summary>
          <Table
            label="Devices that would not get it"
            rows={[...reasons]}
            id={([reason]) => reason}
            columns={[
              { name: "Why", cell: ([reason]) => reason },
              {
                name: "Devices",
                cell: ([, devices]) => (
                  <span class="names">
                    {devices.slice(0, 20).map((device) => (
                      <a key={device} class="tag" href={to(["devices", device])}>
                        {device}
                      </a>
                    ))}
                    {devices.length > 20 && ` and ${format.count(devices.length - 20)} more`}
                  </span>
                ),
              },
            ]}
          />
        </details>
      )}
      <footer>
        <Button tone="main" icon="play" onClick={start}>
          {nobody ? "Start all the same" : "Start"}
        </Button>
      </footer>
    </section>
  );
}
