// When and how fast a rollout goes on, changed while it runs.

import { useState } from "preact/hooks";
import { Problem, address, send } from "../api";
import { Button, Dialog, Failure, Field } from "../parts/basic";
import { toast } from "../toast";
import type { Deployment } from "../types";

const NUMBERS = [
  ["transfers", "Transfers at once", "Empty: no cap of its own"],
  ["starts_per_minute", "New starts a minute", "Empty: no cap of its own"],
  ["bytes_per_second", "Bytes a second", "Firmware, for all its devices; empty: no cap of its own"],
  ["pause_at_percent", "Pause at", "Percent of a wave that failed or are silent; empty: never"],
] as const;

type Windows = "site" | "any" | "own";

/** Its numbers as the fields have them. */
function numbers({ limits, rollout }: Deployment): Record<string, string> {
  const all: Record<string, unknown> = { ...limits, pause_at_percent: rollout.pause_at_percent };
  return Object.fromEntries(NUMBERS.map(([name]) => [name, String(all[name] ?? "")]));
}

export function Change(props: { rollout: Deployment; onClose: () => void; reload: () => void }) {
  const { rollout } = props;
  const [values, setValues] = useState(() => numbers(rollout));
  const [how, setHow] = useState<Windows>(
    !rollout.windows ? "site" : rollout.windows.length > 0 ? "own" : "any",
  );
  const [windows, setWindows] = useState((rollout.windows ?? []).join("\n"));
  const [problem, setProblem] = useState<Error | null>(null);
  const number = (name: string) => {
    const text = values[name]?.trim() ?? "";
    return text === "" ? null : Number(text);
  };
  const lines = windows
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);
  const save = async () => {
    const odd = NUMBERS.find(([name]) => !/^\d*$/.test(values[name]?.trim() ?? ""));
    if (odd) return setProblem(new Error(`${odd[1]} must be a whole number`));
    if (how === "own" && lines.length === 0) return setProblem(new Error("name a window"));
    const [transfers, starts_per_minute, bytes_per_second, pause_at_percent] = NUMBERS.map(
      ([name]) => number(name),
    );
    try {
      await send("PATCH", address(["deployments", rollout.id]), {
        windows: how === "site" ? null : how === "any" ? [] : lines,
        limits: { transfers, starts_per_minute, bytes_per_second },
        pause_at_percent,
      });
      toast("success", `Rollout ${rollout.id} is changed.`);
      props.reload();
      props.onClose();
    } catch (error) {
      setProblem(error as Error);
    }
  };
  const field = problem instanceof Problem ? problem.field : undefined;
  return (
    <Dialog title={`Change rollout ${rollout.id}`} onClose={props.onClose}>
      <Field label="Offered" hint="What has begun finishes in any case.">
        {(id, described) => (
          <select
            id={id}
            aria-describedby={described}
            value={how}
            onChange={(event) => setHow(event.currentTarget.value as Windows)}
          >
            <option value="site">as this site's windows say</option>
            <option value="any">at any time</option>
            <option value="own">in windows of its own</option>
          </select>
        )}
      </Field>
      {how === "own" && (
        <Field
          label="Windows"
          hint="One a line, such as mon-fri 22:00-04:00 Europe/Berlin"
          error={field === "windows" ? problem?.message : undefined}
        >
          {(id, described) => (
            <textarea
              id={id}
              rows={3}
              aria-describedby={described}
              value={windows}
              onInput={(event) => setWindows(event.currentTarget.value)}
            />
          )}
        </Field>
      )}
      <div class="row">
        {NUMBERS.map(([name, label, hint]) => (
          <Field
            key={name}
            label={label}
            hint={hint}
            error={field === name ? problem?.message : undefined}
          >
            {(id, described) => (
              <input
                id={id}
                inputMode="numeric"
                aria-describedby={described}
                value={values[name] ?? ""}
                autocomplete="off"
                onInput={(event) => setValues({ ...values, [name]: event.currentTarget.value })}
              />
            )}
          </Field>
        ))}
      </div>
      {problem && field !== "windows" && field !== "pause_at_percent" && <Failure error={problem} />}
      <footer>
        <Button onClick={props.onClose}>Leave it</Button>
        <Button tone="main" onClick={save}>
          Save
        </Button>
      </footer>
    </Dialog>
  );
}
