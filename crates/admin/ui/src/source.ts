// The stream of changes, opened again whenever it ends.

export type Message =
  | { kind: "open" }
  | { kind: "lost" }
  | { kind: "event"; name: string; data: string };

const EVENTS = ["device", "known", "deployment", "firmware", "import", "site", "missed"];
const FIRST_WAIT = 1_000;
const LONGEST_WAIT = 15_000;

/** Listens until the returned function is called. */
export function listen(say: (message: Message) => void): () => void {
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let wait = FIRST_WAIT;
  const open = () => {
    const current = new EventSource("/api/v1/events");
    source = current;
    current.onopen = () => {
      wait = FIRST_WAIT;
      say({ kind: "open" });
    };
    current.onerror = () => {
      say({ kind: "lost" });
      // A browser tries again by itself, with the last event's id, until it is told no.
      if (current.readyState === EventSource.CLOSED) {
        timer = setTimeout(open, wait);
        wait = Math.min(wait * 2, LONGEST_WAIT);
      }
    };
    for (const name of EVENTS) {
      current.addEventListener(name, (event) => {
        say({ kind: "event", name, data: (event as MessageEvent<string>).data });
      });
    }
  };
  open();
  return () => {
    clearTimeout(timer);
    source?.close();
  };
}
