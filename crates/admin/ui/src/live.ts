// Changes as they happen, and what to do when there may have been some that nobody heard.

import { signal } from "@preact/signals";
import { listen, type Message } from "./source";

export type Kind = "device" | "known" | "deployment" | "firmware" | "import" | "site";

export interface Change {
  type: Kind;
  device?: string;
  deployment?: string;
  path?: string;
  state?: string;
  reason?: string | null;
  version?: string;
  frozen?: boolean;
}

/** Whether changes are heard now. */
export const connection = signal<"connecting" | "live" | "lost">("connecting");

type Listener = (change: Change | "everything") => void;
const listeners = new Set<Listener>();

/** Calls for each change, and with "everything" where some may have been missed. */
export function onChange(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(change: Change | "everything"): void {
  for (const listener of [...listeners]) listener(change);
}

function hear(message: Message): void {
  switch (message.kind) {
    case "open":
      connection.value = "live";
      // What happened before the stream stood is in no event.
      tell("everything");
      break;
    case "lost":
      connection.value = "lost";
      break;
    case "event":
      connection.value = "live";
      tell(message.name === "missed" ? "everything" : (JSON.parse(message.data) as Change));
  }
}

/** The page's policy lets no text become an address of a script, but for this one. */
const worker: string = (() => {
  const types = (
    globalThis as {
      trustedTypes?: {
        createPolicy(
          name: string,
          rules: { createScriptURL: () => string },
        ): { createScriptURL(text: string): unknown };
      };
    }
  ).trustedTypes;
  const policy = types?.createPolicy("fuotad-live", { createScriptURL: () => "/live.js" });
  return (policy?.createScriptURL("") ?? "/live.js") as string;
})();

/** Listens while somebody is logged in; gives what ends it. */
export function start(): () => void {
  if ("SharedWorker" in globalThis) {
    const { port } = new SharedWorker(worker, { name: "fuotad-live" });
    const hello = () => port.postMessage("hello");
    const bye = () => port.postMessage("bye");
    port.onmessage = ({ data }: MessageEvent<Message>) => hear(data);
    addEventListener("pagehide", bye);
    addEventListener("pageshow", hello);
    hello();
    return () => {
      removeEventListener("pagehide", bye);
      removeEventListener("pageshow", hello);
      bye();
      port.close();
    };
  }
  // Without one, only a tab that somebody looks at listens.
  let stop: (() => void) | undefined;
  const look = () => {
    if (document.visibilityState === "visible") {
      stop ??= listen(hear);
    } else {
      stop?.();
      stop = undefined;
    }
  };
  document.addEventListener("visibilitychange", look);
  look();
  return () => {
    document.removeEventListener("visibilitychange", look);
    stop?.();
  };
}
