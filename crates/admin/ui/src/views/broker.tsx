// The broker: its load, and its clients.

import { useEffect, useState } from "preact/hooks";
import { address, may, send } from "../api";
import { useData } from "../data";
import * as format from "../format";
import { Ask, Button, Facts, Failure, Loading, Online, State } from "../parts/basic";
import { Spark } from "../parts/chart";
import { type Column, Listing, Table } from "../parts/table";
import { filter, route, to } from "../route";
import { act } from "../toast";
import type { Client, Status } from "../types";

const COLUMNS: Column<Client>[] = [
  {
    name: "Client",
    cell: (client) => (
      <>
        <Online online={client.connected} />
        <a href={to(["broker", "clients", client.id])}>{client.id}</a>
        <span class="muted sub">
          {client.role}
          {client.name && client.name !== client.id ? ` ${client.name}` : ""}
        </span>
      </>
    ),
  },
  { name: "From", cell: (client) => client.address ?? <span class="muted">–</span> },
  {
    name: "Queue",
    number: true,
    cell: (client) =>
      client.queued_messages === 0
        ? "0"
        : `${format.count(client.queued_messages)} (${format.bytes(client.queued_bytes)})`,
  },
  { name: "In flight", number: true, cell: (client) => format.count(client.inflight) },
  { name: "Subscriptions", number: true, cell: (client) => format.count(client.subscription_count) },
  { name: "Since", cell: (client) => format.duration(client.since_seconds) },
];

const RATES = [
  ["publishes_received", "Messages in"],
  ["deliveries", "Messages out"],
  ["outbox_messages", "Firmware messages"],
  ["dropped", "Dropped"],
] as const;
const KEPT = 60;

/** Differences of counters, as rates. */
function useRates(status: Status | undefined): Record<string, number[]> {
  const [rates, setRates] = useState<Record<string, number[]>>({});
  const [last, setLast] = useState<{ at: number; status: Status } | null>(null);
  useEffect(() => {
    if (!status) return;
    const at = performance.now();
    // After a restart the counters begin anew.
    const same = last && status.uptime_seconds >= last.status.uptime_seconds;
    if (same && at > last.at) {
      const seconds = (at - last.at) / 1000;
      const next: Record<string, number[]> = {};
      for (const [name] of RATES) {
        const rate = ((status.broker[name] ?? 0) - (last.status.broker[name] ?? 0)) / seconds;
        next[name] = [...(rates[name] ?? []), Math.max(0, rate)].slice(-KEPT);
      }
      setRates(next);
    }
    setLast({ at, status });
  }, [status]);
  return rates;
}

export function Broker() {
  const { prefix, connected, after } = route.value.query;
  const status = useData<Status>(address(["status"]), { every: () => 2_000 });
  const clients = useData<{ clients: Client[]; next: string | null }>(
    address(["clients"], { prefix, connected, after, limit: 50 }),
    { every: () => 5_000 },
  );
  const rates = useRates(status.value);
  const broker = status.value?.broker;
  return (
    <>
      <h1>Broker</h1>
      {status.error && <Failure error={status.error} />}
      {!broker ? (
        <Loading />
      ) : (
        <>
          <section class="tiles" aria-label="Rates">
            {RATES.map(([name, text]) => {
              const values = rates[name] ?? [];
              const now = values.at(-1);
              return (
                <div key={name} class="tile">
                  <span class="name">{text}</span>
                  <span class="value">
                    {now === undefined ? "…" : format.count(Math.round(now))}
                    <small>/s</small>
                  </span>
                  <Spark values={values} label={`${text} over the last minutes`} />
                  <span class="muted">{format.count(broker[name] ?? 0)} since the start</span>
                </div>
              );
            })}
          </section>
          <section class="card">
            <h2>Now, and since the start</h2>
            <Facts
              wide
              rows={[
                ["Connections", format.count(broker["connections"] ?? 0)],
                ["Sessions", format.count(broker["sessions"] ?? 0)],
                ["Subscriptions", format.count(broker["subscriptions"] ?? 0)],
                ["Retained messages", format.count(broker["retained_messages"] ?? 0)],
                ["Connects refused", format.count(broker["connects_refused"] ?? 0)],
                ["Not allowed", format.count(broker["refused"] ?? 0)],
                ["Broken protocol", format.count(broker["protocol_errors"] ?? 0)],
                ["Too slow", format.count(broker["slow_clients"] ?? 0)],
                [
                  "Router renewals",
                  broker["router_renewals"] ? (
                    <b class="bad">{format.count(broker["router_renewals"])}</b>
                  ) : (
                    "0"
                  ),
                ],
                ["Log written", format.bytes(broker["log_bytes"] ?? 0)],
              ]}
            />
          </section>
        </>
      )}
      <section class="card">
        <h2>Clients</h2>
        <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
          <input
            type="search"
            aria-label="Client id begins with"
            placeholder="Client id begins with"
            value={prefix ?? ""}
            onInput={(event) => filter({ prefix: event.currentTarget.value })}
          />
          <select
            aria-label="Presence"
            value={connected ?? ""}
            onChange={(event) => filter({ connected: event.currentTarget.value })}
          >
            <option value="">connected or away</option>
            <option value="true">connected</option>
            <option value="false">away</option>
          </select>
        </form>
        <Listing
          label="Clients"
          data={clients}
          rows={(page) => page.clients}
          columns={COLUMNS}
          id={(client) => client.id}
          empty={prefix || connected ? "No client is like that." : "No client is connected."}
        />
      </section>
    </>
  );
}

export function ClientPage({ id }: { id: string }) {
  const [asked, setAsked] = useState(false);
  const data = useData<Client>(address(["clients", id]), { every: () => 3_000 });
  const client = data.value;
  if (!client) return data.error ? <Failure error={data.error} retry={data.reload} /> : <Loading />;
  return (
    <>
      <p class="crumbs">
        <a href={to(["broker"])}>Broker</a>
      </p>
      <header class="title">
        <h1>
          <Online online={client.connected} /> {client.id}
        </h1>
        {may.administer() && client.connected && (
          <div class="actions">
            <Button icon="stop" onClick={() => setAsked(true)}>
              Disconnect
            </Button>
          </div>
        )}
      </header>
      <div class="columns">
        <section class="card">
          <h2>Session</h2>
          <Facts
            rows={[
              ["State", <State name={client.connected ? "connected" : "away"} />],
              ["Role", client.role],
              ["Account", client.name],
              ["MQTT", client.protocol],
              ["Address", client.address],
              [client.connected ? "Connected for" : "Away for", format.duration(client.since_seconds)],
              ["Last packet", client.idle_seconds === null ? null : `${format.duration(client.idle_seconds)} ago`],
              ["Queue", `${format.plural(client.queued_messages, "message")}, ${format.bytes(client.queued_bytes)}`],
              ["In flight", format.count(client.inflight)],
            ]}
          />
        </section>
        <section class="card">
          <h2>Subscriptions</h2>
          {client.subscriptions?.length === 0 && <p class="empty">It has none.</p>}
          {(client.subscriptions?.length ?? 0) > 0 && (
            <Table
              label="Subscriptions"
              rows={client.subscriptions ?? []}
              id={(one) => one.filter}
              columns={[
                { name: "Filter", cell: (one) => <code>{one.filter}</code> },
                { name: "QoS", cell: (one) => one.qos, number: true },
              ]}
            />
          )}
        </section>
      </div>
      {asked && (
        <Ask
          title={`Disconnect ${client.id}?`}
          text="Its connection ends; it may come back at once. A persistent session stays."
          yes="Disconnect"
          onClose={() => setAsked(false)}
          onYes={() =>
            act(() => send("DELETE", address(["clients", id])), "Disconnected.").then(data.reload)
          }
        />
      )}
    </>
  );
}
