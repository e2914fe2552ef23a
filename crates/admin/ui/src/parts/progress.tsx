// How far a transfer is, how fast, and how long it still takes.

import { useEffect, useState } from "preact/hooks";
import * as format from "../format";
import type { Device } from "../types";
import { Bar } from "./basic";

interface Sample {
  at: number;
  chunks: number;
  digest: string;
}

/** The newest samples of each device that somebody looked at. */
const samples = new Map<string, Sample[]>();
const KEPT = 8;
const DEVICES = 2_000;

/** Bytes a second over the last samples; undefined before there are two. */
function rate(device: Device): number | undefined {
  const kept = samples.get(device.id);
  const [first, last] = [kept?.[0], kept?.at(-1)];
  if (!first || !last || last.at === first.at || !device.firmware) return undefined;
  return ((last.chunks - first.chunks) * device.firmware.chunk_size * 1000) / (last.at - first.at);
}

export function note(device: Device): void {
  if (device.state !== "downloading" || !device.firmware) {
    samples.delete(device.id);
    return;
  }
  const sample = {
    at: performance.now(),
    chunks: device.progress.chunks_sent,
    digest: device.firmware.digest,
  };
  const before = (samples.get(device.id) ?? []).filter(
    ({ digest, chunks }) => digest === sample.digest && chunks <= sample.chunks,
  );
  samples.set(device.id, [...before, sample].slice(-KEPT));
  if (samples.size > DEVICES) samples.delete(samples.keys().next().value as string);
}

export function Progress({ device }: { device: Device }) {
  const { chunks_sent: sent, chunks_total: total } = device.progress;
  const [, setNoted] = useState(0);
  useEffect(() => {
    note(device);
    setNoted(performance.now());
  }, [device]);
  if (device.state !== "downloading" || !device.firmware) return null;
  const speed = rate(device);
  const left = (total - sent) * device.firmware.chunk_size;
  return (
    <div class="progress">
      <Bar part={sent} whole={total} label={`Download of ${device.id}`} />
      <span>
        {format.percent(sent, total)} %
        {speed !== undefined && speed > 0 && (
          <>
            {" · "}
            {format.bytes(speed)}/s · {format.duration(left / speed)} left
          </>
        )}
      </span>
    </div>
  );
}
