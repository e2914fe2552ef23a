// A rollout in short.

import { Shares } from "../parts/chart";
import { State } from "../parts/basic";
import { TargetText } from "../parts/target";
import { to } from "../route";
import type { Deployment, Wave } from "../types";

export function name(one: Deployment): string {
  return `${one.firmware.title ?? one.firmware.path} ${one.firmware.version}`;
}

export function waveText(wave: Wave): string {
  if ("count" in wave) return wave.count === 1 ? "1 device" : `${wave.count} devices`;
  return wave.percent === 100 ? "all" : `${wave.percent} %`;
}

export function Waves({ rollout }: { rollout: Deployment }) {
  const { waves } = rollout.rollout;
  if (waves.length < 2) return null;
  const over = rollout.state === "cancelled" || rollout.state === "ended";
  return (
    <ol class="waves" aria-label="Waves">
      {waves.map((wave, index) => {
        const number = index + 1;
        const current = number === rollout.wave && !over;
        const done = number < rollout.wave;
        return (
          <li
            key={number}
            class={current ? "current" : done ? "done" : ""}
            aria-current={current ? "step" : undefined}
          >
            {waveText(wave)}
          </li>
        );
      })}
    </ol>
  );
}

export function RolloutCard({ rollout }: { rollout: Deployment }) {
  return (
    <article class="card">
      <header>
        <h3>
          <a href={to(["rollouts", rollout.id])}>{name(rollout)}</a>
        </h3>
        <State name={rollout.state} />
      </header>
      <p class="muted">
        to <TargetText target={rollout.target} />
      </p>
      <Waves rollout={rollout} />
      <Shares counts={rollout.counts} label={`Devices of rollout ${rollout.id} by state`} />
      {rollout.reason && <p class="hint">{rollout.reason}</p>}
    </article>
  );
}
