// Lists: a table that becomes cards on a narrow screen, and the links to its pages.

import type { ComponentChildren } from "preact";
import { type Data, useLast } from "../data";
import { route, to } from "../route";
import { Empty, Failure, Loading } from "./basic";

export interface Column<T> {
  name: string;
  cell: (row: T) => ComponentChildren;
  /** Numbers stand on the right. */
  number?: boolean;
}

export function Table<T>(props: {
  label: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T) => string;
}) {
  return (
    <div class="table">
      <table>
        <caption class="hidden">{props.label}</caption>
        <thead>
          <tr>
            {props.columns.map(({ name, number }) => (
              <th key={name} scope="col" class={number ? "number" : ""}>
                {name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row) => (
            <tr key={props.id(row)}>
              {props.columns.map(({ name, cell, number }) => (
                <td key={name} data-name={name} class={number ? "number" : ""}>
                  <div>{cell(row)}</div>
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A page of a list of the API, with the way to the next. */
export function Listing<T, P extends { next: string | null }>(props: {
  label: string;
  data: Data<P>;
  rows: (page: P) => T[];
  columns: Column<T>[];
  id: (row: T) => string;
  empty: ComponentChildren;
  /** The query's key of the page; lists within a page need another. */
  key_?: string;
}) {
  const { data, key_: key = "after" } = props;
  const page = useLast(data.value);
  const { path, query } = route.value;
  if (data.error && !page) return <Failure error={data.error} retry={data.reload} />;
  if (!page) return <Loading />;
  const rows = props.rows(page);
  return (
    <div class={data.value ? "" : "stale"}>
      {data.error && <Failure error={data.error} retry={data.reload} />}
      {rows.length === 0 ? (
        <Empty>{props.empty}</Empty>
      ) : (
        <Table label={props.label} columns={props.columns} rows={rows} id={props.id} />
      )}
      {(query[key] || page.next) && (
        <nav class="pages" aria-label={`Pages of ${props.label.toLowerCase()}`}>
          {query[key] && <a href={to(path, { ...query, [key]: undefined })}>First page</a>}
          {page.next && <a href={to(path, { ...query, [key]: page.next })}>Next page</a>}
        </nav>
      )}
    </div>
  );
}
