// Short messages, in the three severities of the reference's validation messages.

import { signal } from "@preact/signals";
import { Icon } from "./parts/icon";

export type Severity = "success" | "warning" | "danger";

interface Toast {
  id: number;
  severity: Severity;
  text: string;
}

const toasts = signal<Toast[]>([]);
let next = 0;
/** What went wrong stays until somebody closes it. */
const STAYS = 7_000;
const MOST = 5;

export function toast(severity: Severity, text: string): void {
  const id = next++;
  toasts.value = [...toasts.value, { id, severity, text }].slice(-MOST);
  if (severity !== "danger") setTimeout(() => close(id), STAYS);
}

function close(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

/** Does it, and says how it went. */
export async function act(what: () => Promise<unknown>, done: string): Promise<boolean> {
  try {
    await what();
    toast("success", done);
    return true;
  } catch (error) {
    toast("danger", (error as Error).message);
    return false;
  }
}

const MEANING = { success: "Done", warning: "Note", danger: "Failed" };

export function Toasts() {
  return (
    <section class="toasts" aria-label="Messages" aria-live="polite">
      {toasts.value.map(({ id, severity, text }) => (
        <div key={id} class={`toast ${severity}`} role={severity === "danger" ? "alert" : "status"}>
          <Icon name={severity} />
          <p>
            <strong>{MEANING[severity]}.</strong> {text}
          </p>
          <button class="plain" onClick={() => close(id)} aria-label="Close this message">
            <Icon name="close" />
          </button>
        </div>
      ))}
    </section>
  );
}
