// How far a transfer is, how fast, and how long it still takes.

import * as format from "../format";
import type { Device } from "../types";
import { Bar } from "./basic";

export function Progress({ device }: { device: Device }) {
  const { chunks_sent: sent, chunks_total: total, bytes_per_second: speed } = device.progress;
  if (device.state !== "downloading" || !device.firmware) return null;
  const left = (total - sent) * device.firmware.chunk_size;
  return (
    <div class="progress">
      <Bar part={sent} whole={total} label={`Download of ${device.id}`} />
      <span>
        {format.percent(sent, total)} %
        {device.stalled ? (
          <> · {device.stalled}</>
        ) : (
          speed !== null &&
          speed > 0 && (
            <>
              {" · "}
              {format.bytes(speed)}/s · {format.duration(left / speed)} left
            </>
          )
        )}
      </span>
    </div>
  );
}
