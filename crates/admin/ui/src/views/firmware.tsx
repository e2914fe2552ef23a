// The catalog: every dropped or uploaded file, the refused and held ones with their reasons.

import { address, may } from "../api";
import { useData } from "../data";
import * as format from "../format";
import { Icon } from "../parts/icon";
import { State, Time } from "../parts/basic";
import { type Column, Listing } from "../parts/table";
import { filter, route, to } from "../route";
import { type Firmware, warning } from "../types";

const STATES = ["accepted", "catalogued", "held", "conflict", "refused", "withdrawn", "replaced"];
/** The listing has no filter of its own; a site has some hundred files at most. */
const ALL = 1000;

const COLUMNS: Column<Firmware>[] = [
  {
    name: "File",
    cell: (file) => (
      <>
        <a href={to(["firmware", file.id])}>{file.path}</a>
        {warning(file) && <span class="muted sub">{warning(file)}</span>}
      </>
    ),
  },
  {
    name: "Firmware",
    cell: (file) =>
      file.title || file.version ? (
        `${file.title?.value ?? ""} ${file.version?.value ?? ""}`
      ) : (
        <span class="muted">–</span>
      ),
  },
  { name: "State", cell: (file) => <State name={file.state} /> },
  {
    name: "For",
    cell: (file) => file.target ?? <span class="muted">nobody by itself</span>,
  },
  { name: "Size", number: true, cell: (file) => (file.size === null ? "–" : format.bytes(file.size)) },
  { name: "Since", cell: (file) => <Time at={file.created} /> },
];

export function FirmwareList() {
  const { state, search, after } = route.value.query;
  const data = useData<{ firmware: Firmware[]; next: string | null }>(
    address(["firmware"], { after, limit: ALL }),
    { on: (change) => change.type !== "device", every: () => 15_000 },
  );
  const fits = (file: Firmware) =>
    (!state || file.state === state) &&
    (!search || `${file.path} ${file.title?.value ?? ""}`.toLowerCase().includes(search.toLowerCase()));
  return (
    <>
      <header class="title">
        <h1>Firmware</h1>
        {may.operate() && (
          <a class="button main" href={to(["upload"])}>
            <Icon name="upload" />
            Upload
          </a>
        )}
      </header>
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <input
          type="search"
          aria-label="Search by name"
          placeholder="Search by name"
          value={search ?? ""}
          onInput={(event) => filter({ search: event.currentTarget.value })}
        />
        <select
          aria-label="State of the file"
          value={state ?? ""}
          onChange={(event) => filter({ state: event.currentTarget.value })}
        >
          <option value="">any state</option>
          {STATES.map((state) => (
            <option key={state} value={state}>
              {state}
            </option>
          ))}
        </select>
      </form>
      <Listing
        label="Firmware"
        data={data}
        rows={(page) =>
          page.firmware.filter(fits).sort((a, b) => (b.created ?? 0) - (a.created ?? 0))
        }
        columns={COLUMNS}
        id={(file) => file.id}
        empty={
          state || search
            ? "No file is like that."
            : "There is no firmware yet. Upload a file, or drop one into the watched directory."
        }
      />
    </>
  );
}
