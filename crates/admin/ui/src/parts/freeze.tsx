// Stopping all offers of the site, and letting them go on.

import { address, may, send } from "../api";
import { type Data, useData } from "../data";
import { act } from "../toast";
import type { Freeze } from "../types";
import { Button } from "./basic";

export function useFreeze(): Data<Freeze> {
  return useData<Freeze>(address(["freeze"]), {
    on: (change) => change.type === "site",
    every: () => 60_000,
  });
}

export function setFreeze(frozen: boolean): Promise<boolean> {
  return act(
    () => send(frozen ? "PUT" : "DELETE", address(["freeze"])),
    frozen ? "All offers of the site are stopped." : "Offers go on.",
  );
}

/** Stops all offers; that they are stopped, and the way back, stand at the top of every page. */
export function FreezeButton() {
  const { value, reload } = useFreeze();
  if (!may.operate() || !value || value.frozen) return null;
  return (
    <Button icon="snow" onClick={() => setFreeze(true).then(reload)}>
      Freeze the site
    </Button>
  );
}
