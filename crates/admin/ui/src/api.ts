// Requests to the admin interface. What it answers is the truth; nothing here decides.

import { signal } from "@preact/signals";

export type Role = "service" | "operator" | "admin";

export interface Session {
  name: string;
  role: Role;
  csrf: string;
  version: string;
}

/** Who is logged in: undefined before it is known, null for nobody. */
export const session = signal<Session | null | undefined>(undefined);

/** Whether the role may do this; the daemon decides again, this only hides what would be refused. */
export const may = {
  operate: () => session.value?.role === "operator" || session.value?.role === "admin",
  administer: () => session.value?.role === "admin",
};

/** An answer that is an error, as RFC 9457 describes it. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    detail: string,
    readonly field?: string,
  ) {
    super(detail);
  }
}

/** Nobody answers. */
export class Unreachable extends Error {
  constructor() {
    super("the broker does not answer");
  }
}

export type Query = Record<string, string | number | boolean | null | undefined>;

/** An address below /api/v1: path segments are escaped, empty values left out. */
export function address(path: (string | number)[], query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") search.set(key, String(value));
  }
  const text = search.toString();
  return `/api/v1/${path.map((part) => encodeURIComponent(part)).join("/")}${text ? `?${text}` : ""}`;
}

export async function get<T>(url: string, signal?: AbortSignal): Promise<T> {
  return read<T>(await ask(url, { signal }));
}

export async function send<T>(
  method: "POST" | "PUT" | "PATCH" | "DELETE",
  url: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<T> {
  const init: RequestInit = { method, headers: { ...guard(), ...headers } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    (init.headers as Record<string, string>)["Content-Type"] = "application/json";
  }
  return read<T>(await ask(url, init));
}

/** What a change carries to show that it comes from this page. */
function guard(): Record<string, string> {
  return session.value ? { "X-CSRF-Token": session.value.csrf } : {};
}

async function ask(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, { ...init, credentials: "same-origin", redirect: "error" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Unreachable();
  }
}

async function read<T>(answer: Response): Promise<T> {
  const text = await answer.text().catch(() => {
    throw new Unreachable();
  });
  if (!answer.ok) throw problem(answer.status, text);
  return (text ? JSON.parse(text) : undefined) as T;
}

function problem(status: number, text: string): Problem {
  if (status === 401 && session.value) session.value = null;
  try {
    const { detail, field } = JSON.parse(text) as { detail?: string; field?: string };
    return new Problem(status, detail ?? text, field);
  } catch {
    return new Problem(status, text || `the answer was ${status}`);
  }
}

/** Uploads a form; `fetch` cannot say how far it is. */
export function upload<T>(url: string, form: FormData, progress: (share: number) => void): {
  done: Promise<T>;
  cancel: () => void;
} {
  const request = new XMLHttpRequest();
  const done = new Promise<T>((resolve, reject) => {
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    };
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) {
        resolve(JSON.parse(request.responseText) as T);
      } else {
        reject(problem(request.status, request.responseText));
      }
    };
    // A daemon that refuses what is too large answers and closes; the answer may be lost then.
    request.onerror = () => reject(new Unreachable());
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
  });
  request.open("POST", url);
  for (const [name, value] of Object.entries(guard())) request.setRequestHeader(name, value);
  request.send(form);
  return { done, cancel: () => request.abort() };
}

export async function whoAmI(): Promise<void> {
  const found = await get<{ [key in keyof Session]: Session[key] | null }>("/api/v1/session");
  session.value = found.name ? (found as Session) : null;
}

export async function logIn(login: { token: string } | { name: string; password: string }) {
  session.value = await send<Session>("POST", "/api/v1/session", login);
}

export async function logOut(): Promise<void> {
  await send("DELETE", "/api/v1/session");
  session.value = null;
}
