// One stream of changes for all tabs: a browser opens six connections to a host, and an eighth tab
// with a stream of its own would wait for ever.

import { listen, type Message } from "./source";

const ports = new Set<MessagePort>();
let stop: (() => void) | undefined;
let last: Message | undefined;

function say(message: Message): void {
  if (message.kind !== "event") last = message;
  for (const port of ports) port.postMessage(message);
}

(globalThis as unknown as { onconnect: (event: MessageEvent) => void }).onconnect = (event) => {
  const port = event.ports[0];
  if (!port) return;
  port.onmessage = ({ data }: MessageEvent<string>) => {
    if (data === "hello") {
      ports.add(port);
      if (!stop) stop = listen(say);
      else if (last) port.postMessage(last);
    } else if (data === "bye") {
      ports.delete(port);
      if (ports.size === 0) {
        stop?.();
        stop = last = undefined;
      }
    }
  };
};
