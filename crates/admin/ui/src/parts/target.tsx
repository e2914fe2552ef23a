// Whom a deployment is for.

import { useState } from "preact/hooks";
import { address } from "../api";
import { useData } from "../data";
import * as format from "../format";
import { to } from "../route";
import type { Device, Fleet, Target } from "../types";
import { Field } from "./basic";

type Kind = "all" | "group" | "model" | "device" | "labels";

const KINDS: [Kind, string][] = [
  ["all", "All devices"],
  ["group", "A group"],
  ["model", "A model"],
  ["device", "One device"],
  ["labels", "By labels"],
];

export function TargetText({ target }: { target: Target }) {
  if (target.all) return <>all devices</>;
  if (target.device) return <a href={to(["devices", target.device])}>{target.device}</a>;
  if (target.group) return <a href={to(["devices"], { group: target.group })}>group {target.group}</a>;
  if (target.model) return <a href={to(["devices"], { model: target.model })}>model {target.model}</a>;
  if (target.labels) return <>labels {target.labels}</>;
  if (target.rollback) {
    return <a href={to(["rollouts", target.rollback])}>the devices of rollout {target.rollback}</a>;
  }
  return <>nobody</>;
}

/** Asks for a target; null while it is not complete. */
export function Choose(props: {
  start: Target | null;
  onChange: (target: Target | null) => void;
  error?: string | undefined;
}) {
  const [kind, setKind] = useState<Kind | null>(() => {
    const given = Object.keys(props.start ?? {})[0];
    return (given as Kind | undefined) ?? null;
  });
  const [value, setValue] = useState(() => String(Object.values(props.start ?? {})[0] ?? ""));
  const fleet = useData<Fleet>(address(["fleet"])).value;
  const choose = (kind: Kind, value: string) => {
    setKind(kind);
    setValue(value);
    if (kind === "all") props.onChange({ all: true });
    else props.onChange(value.trim() ? { [kind]: value.trim() } : null);
  };
  return (
    <fieldset>
      <legend>For whom</legend>
      <div class="choices">
        {KINDS.map(([name, text]) => (
          <label key={name} class="choice">
            <input
              type="radio"
              name="target"
              checked={kind === name}
              onChange={() => choose(name, "")}
            />
            {text}
          </label>
        ))}
      </div>
      {kind === "group" && (
        <Pick
          label="Group"
          value={value}
          names={fleet?.groups}
          onChange={(value) => choose("group", value)}
        />
      )}
      {kind === "model" && (
        <Pick
          label="Model"
          value={value}
          names={fleet?.models}
          onChange={(value) => choose("model", value)}
        />
      )}
      {kind === "device" && <PickDevice value={value} onChange={(value) => choose("device", value)} />}
      {kind === "labels" && (
        <Field label="Expression" hint="For instance: hall=2 and not spare, or floor in (1, 2)">
          {(id, described) => (
            <input
              id={id}
              aria-describedby={described}
              value={value}
              autocomplete="off"
              spellcheck={false}
              onInput={(event) => choose("labels", event.currentTarget.value)}
            />
          )}
        </Field>
      )}
      {props.error && <p class="hint bad">{props.error}</p>}
    </fieldset>
  );
}

function Pick(props: {
  label: string;
  value: string;
  names: Fleet["groups"] | undefined;
  onChange: (value: string) => void;
}) {
  const known = (props.names ?? []).map(({ name, devices }): [string, string] => [
    name,
    format.plural(devices, "device"),
  ]);
  const hint = known.length === 0 ? "No device has one yet; name it all the same." : undefined;
  return <Suggest {...props} hint={hint} known={known} />;
}

function PickDevice(props: { value: string; onChange: (value: string) => void }) {
  const url = address(["devices"], { search: props.value, limit: 20 });
  const found = useData<{ devices: Device[] }>(url).value?.devices ?? [];
  const known = found.map(({ id, online }): [string, string] => [id, online ? "online" : "away"]);
  return <Suggest {...props} label="Device" hint="Type a part of its id." known={known} />;
}

/** A field that suggests what is known, each with a word about it. */
function Suggest(props: {
  label: string;
  hint?: string | undefined;
  value: string;
  known: [string, string][];
  onChange: (value: string) => void;
}) {
  return (
    <Field label={props.label} hint={props.hint}>
      {(id, described) => (
        <>
          <input
            id={id}
            list={`${id}-list`}
            aria-describedby={described}
            value={props.value}
            autocomplete="off"
            spellcheck={false}
            onInput={(event) => props.onChange(event.currentTarget.value)}
          />
          <datalist id={`${id}-list`}>
            {props.known.map(([name, text]) => (
              <option key={name} value={name}>
                {text}
              </option>
            ))}
          </datalist>
        </>
      )}
    </Field>
  );
}
