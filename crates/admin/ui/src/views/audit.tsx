// Who did what, when, from where.

import { address } from "../api";
import { useData } from "../data";
import * as format from "../format";
import { Time } from "../parts/basic";
import { type Column, Listing } from "../parts/table";
import { route } from "../route";
import type { AuditLine } from "../types";

const COLUMNS: Column<AuditLine>[] = [
  { name: "When", cell: (line) => <Time at={line.at} /> },
  { name: "Who", cell: (line) => line.actor ?? <span class="muted">the broker</span> },
  { name: "What", cell: (line) => `${format.words(line.action)} ${line.subject}` },
  { name: "Details", cell: (line) => <span class="wrap">{line.detail ?? "–"}</span> },
  { name: "From", cell: (line) => line.origin ?? <span class="muted">–</span> },
];

export function Audit() {
  const data = useData<{ audit: AuditLine[]; next: string | null }>(
    address(["audit"], { after: route.value.query["after"], limit: 100 }),
    { on: () => true, every: () => 30_000 },
  );
  return (
    <>
      <h1>Audit</h1>
      <Listing
        label="Audit"
        data={data}
        rows={(page) => page.audit}
        columns={COLUMNS}
        id={(line) => line.id}
        empty="Nothing was done yet."
      />
    </>
  );
}
