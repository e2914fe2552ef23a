// Where in the page somebody is: `#/devices?state=failed`. Every list is a link.

import { signal } from "@preact/signals";

export interface Route {
  /** The path's segments, unescaped. */
  path: string[];
  query: Record<string, string>;
}

function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  return {
    path: path.split("/").filter(Boolean).map(unescaped),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

function unescaped(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export const route = signal<Route>(parse(location.hash));

addEventListener("hashchange", () => {
  route.value = parse(location.hash);
});

export type Params = Record<string, string | undefined>;

/** The link to a place; empty values are left out. */
export function to(path: string[], query: Params = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value) search.set(key, value);
  const text = search.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export function go(link: string): void {
  location.hash = link;
}

/** The same list with another filter; from its first page, and without a step back for each key. */
export function filter(changes: Params): void {
  const { path, query } = route.value;
  const link = to(path, { ...query, after: undefined, ...changes });
  history.replaceState(null, "", link);
  route.value = parse(link);
}
