// Charts as SVG and bars: shares of a whole, and counts over time. Each says its numbers in words
// too.

import * as format from "../format";

/** The states of devices in the order of their lives, and the colour of each. */
export const STATES = [
  "updated",
  "updated_unconfirmed",
  "updating",
  "verified",
  "downloaded",
  "downloading",
  "offered",
  "silent",
  "failed",
  "cancelled",
] as const;

export function Shares({ counts, label }: { counts: Record<string, number>; label: string }) {
  const shown = STATES.filter((state) => (counts[state] ?? 0) > 0);
  const all = shown.reduce((sum, state) => sum + (counts[state] ?? 0), 0);
  return (
    <div class="shares">
      <div class="stack" role="img" aria-label={label}>
        {shown.map((state) => (
          <div
            key={state}
            class={`fill ${state}`}
            style={{ flexGrow: counts[state] ?? 0 }}
            title={`${format.words(state)}: ${format.count(counts[state] ?? 0)}`}
          />
        ))}
        {all === 0 && <div class="fill none" />}
      </div>
      <ul class="legend">
        {shown.map((state) => (
          <li key={state}>
            <span class={`swatch ${state}`} />
            {format.words(state)} <b>{format.count(counts[state] ?? 0)}</b>
          </li>
        ))}
        {all === 0 && <li class="muted">no device was offered it yet</li>}
      </ul>
    </div>
  );
}

interface Point {
  at: number;
  counts: Record<string, number>;
}

/** Counts per state over time, stacked. */
export function OverTime({ points }: { points: Point[] }) {
  const first = points[0];
  const last = points.at(-1);
  if (!first || !last || points.length < 2) return null;
  const total = Math.max(1, ...points.map(({ counts }) => sum(counts)));
  const width = 600;
  const height = 120;
  const x = (at: number) => ((at - first.at) / Math.max(1, last.at - first.at)) * width;
  const y = (value: number) => height - (value / total) * height;
  const below = points.map(() => 0);
  const areas = STATES.map((state) => {
    const lower = points.map(({ at }, index) => `${x(at)},${y(below[index] ?? 0)}`);
    points.forEach(({ counts }, index) => {
      below[index] = (below[index] ?? 0) + (counts[state] ?? 0);
    });
    const upper = points.map(({ at }, index) => `${x(at)},${y(below[index] ?? 0)}`);
    return { state, path: `M${upper.join("L")}L${lower.reverse().join("L")}Z` };
  });
  const spoken = STATES.filter((state) => last.counts[state])
    .map((state) => `${last.counts[state]} ${format.words(state)}`)
    .join(", ");
  return (
    <figure class="over-time">
      <svg
        viewBox={`0 0 ${width} ${height}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`Devices over ${format.duration(last.at - first.at)}; at the end ${spoken}`}
      >
        {areas.map(({ state, path }) => (
          <path key={state} class={`area ${state}`} d={path} />
        ))}
      </svg>
      <figcaption>
        <span>{format.moment(first.at)}</span>
        <span>{format.moment(last.at)}</span>
      </figcaption>
    </figure>
  );
}

function sum(counts: Record<string, number>): number {
  return Object.values(counts).reduce((all, one) => all + one, 0);
}

/** The last values of one number. */
export function Spark({ values, label }: { values: number[]; label: string }) {
  const top = Math.max(1, ...values);
  const step = 100 / Math.max(1, values.length - 1);
  const points = values.map((value, index) => `${index * step},${24 - (value / top) * 22}`);
  return (
    <svg class="spark" viewBox="0 0 100 25" preserveAspectRatio="none" role="img" aria-label={label}>
      {values.length > 1 && <polyline points={points.join(" ")} />}
    </svg>
  );
}
