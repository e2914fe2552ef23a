// Small parts that many views are made of.

import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Unreachable } from "../api";
import * as format from "../format";
import { toast } from "../toast";
import { Icon, type IconName } from "./icon";

/** How a state looks: what is well, what runs, what wants somebody. */
const TONES: Record<string, string> = {
  accepted: "good",
  updated: "good",
  running: "live",
  offered: "live",
  downloading: "live",
  downloaded: "live",
  verified: "live",
  updating: "live",
  updated_unconfirmed: "good",
  paused: "warn",
  held: "warn",
  silent: "warn",
  conflict: "warn",
  failed: "bad",
  refused: "bad",
  withdrawn: "off",
  cancelled: "off",
  ended: "off",
  replaced: "off",
  catalogued: "off",
};

export function State({ name }: { name: string | null }) {
  if (!name) return <span class="muted">–</span>;
  return <span class={`state ${TONES[name] ?? "off"}`}>{format.words(name)}</span>;
}

export function Online({ online }: { online: boolean }) {
  return (
    <span class={`dot ${online ? "on" : ""}`}>
      <span class="hidden">{online ? "online" : "away"}</span>
    </span>
  );
}

export function Time({ at }: { at: number | null }) {
  if (at === null) return <span class="muted">never</span>;
  return (
    <time dateTime={new Date(at * 1000).toISOString()} title={format.moment(at)}>
      {format.ago(at)}
    </time>
  );
}

export function Bar({ part, whole, label }: { part: number; whole: number; label: string }) {
  const share = format.percent(part, whole);
  return (
    <div
      class="bar"
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={share}
    >
      <div style={{ width: `${share}%` }} />
    </div>
  );
}

export function Failure({ error, retry }: { error: Error; retry?: () => void }) {
  // That nobody answers is said at the top of the page, once.
  if (error instanceof Unreachable) return null;
  return (
    <div class="callout bad" role="alert">
      <Icon name="danger" />
      <p>{error.message}</p>
      {retry && <Button onClick={retry}>Try again</Button>}
    </div>
  );
}

export function Callout(props: {
  tone: "good" | "warn" | "bad" | "info";
  icon: IconName;
  children: ComponentChildren;
}) {
  return (
    <div class={`callout ${props.tone}`}>
      <Icon name={props.icon} />
      <div>{props.children}</div>
    </div>
  );
}

export function Button(props: {
  onClick: () => unknown;
  children: ComponentChildren;
  icon?: IconName;
  tone?: "main" | "bad" | "plain";
  disabled?: boolean;
  type?: "button" | "submit";
}) {
  const [busy, setBusy] = useState(false);
  const alive = useRef(true);
  useEffect(() => () => void (alive.current = false), []);
  const click = async () => {
    setBusy(true);
    try {
      await props.onClick();
    } finally {
      if (alive.current) setBusy(false);
    }
  };
  return (
    <button
      type={props.type ?? "button"}
      class={props.tone ?? ""}
      disabled={props.disabled || busy}
      aria-busy={busy}
      onClick={() => void click()}
    >
      {props.icon && <Icon name={props.icon} />}
      {props.children}
    </button>
  );
}

/** A question, or a small form, above the page. Escape closes it. */
export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog ref={element} aria-labelledby={id} onClose={props.onClose}>
      <header>
        <h2 id={id}>{props.title}</h2>
        <button class="plain" aria-label="Close" onClick={() => element.current?.close()}>
          <Icon name="close" />
        </button>
      </header>
      {props.children}
    </dialog>
  );
}

/** Asks before it does what cannot be undone. */
export function Ask(props: {
  title: string;
  text: ComponentChildren;
  yes: string;
  tone?: "bad" | "main";
  onYes: () => Promise<unknown>;
  onClose: () => void;
}) {
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <p>{props.text}</p>
      <footer>
        <Button onClick={props.onClose}>No, leave it</Button>
        <Button
          tone={props.tone ?? "bad"}
          onClick={async () => {
            await props.onYes();
            props.onClose();
          }}
        >
          {props.yes}
        </Button>
      </footer>
    </Dialog>
  );
}

export function Field(props: {
  label: string;
  hint?: ComponentChildren;
  error?: string | undefined;
  children: (id: string, described: string) => ComponentChildren;
}) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.children(id, `${id}-hint`)}
      <p class={props.error ? "hint bad" : "hint"} id={`${id}-hint`}>
        {props.error ?? props.hint}
      </p>
    </div>
  );
}

/** Text to take along. Without a secure context the browser only selects it. */
export function Copy({ text, what }: { text: string; what: string }) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      toast("success", `${what} copied.`);
    } catch {
      toast("warning", `This browser copies nothing here; select the ${what.toLowerCase()} by hand.`);
    }
  };
  return (
    <button class="plain small" aria-label={`Copy the ${what.toLowerCase()}`} onClick={() => void copy()}>
      <Icon name="copy" />
    </button>
  );
}

/** A secret that is shown once. */
export function Secret({ text, what }: { text: string; what: string }) {
  return (
    <div class="secret">
      <code>{text}</code>
      <Copy text={text} what={what} />
    </div>
  );
}

export function Facts({ rows, wide }: { rows: [string, ComponentChildren][]; wide?: boolean }) {
  return (
    <dl class={wide ? "facts wide" : "facts"}>
      {rows.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value ?? <span class="muted">–</span>}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

export function Loading() {
  return (
    <p class="empty" aria-busy="true">
      Reading…
    </p>
  );
}
