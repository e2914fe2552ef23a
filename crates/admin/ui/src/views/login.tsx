// Who asks: a user, or who has the admin token.

import { useRef, useState } from "preact/hooks";
import { logIn } from "../api";
import { Field } from "../parts/basic";
import { Icon } from "../parts/icon";

export function Login() {
  const [way, setWay] = useState<"token" | "user">("user");
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const form = useRef<HTMLFormElement>(null);
  const submit = async (event: Event) => {
    event.preventDefault();
    const given = new FormData(form.current ?? undefined);
    const text = (name: string) => String(given.get(name) ?? "");
    setBusy(true);
    try {
      await logIn(
        way === "token"
          ? { token: text("token") }
          : { name: text("name"), password: text("password") },
      );
    } catch (error) {
      setProblem((error as Error).message);
      setBusy(false);
    }
  };
  return (
    <main class="login">
      <form ref={form} class="card" onSubmit={(event) => void submit(event)}>
        <img src="/icon.svg" alt="" width="48" height="48" />
        <h1>fuotad</h1>
        <fieldset class="switch">
          <legend class="hidden">How you log in</legend>
          {(["user", "token"] as const).map((one) => (
            <label key={one} class={way === one ? "current" : ""}>
              <input
                type="radio"
                name="way"
                class="hidden"
                checked={way === one}
                onChange={() => {
                  setWay(one);
                  setProblem(null);
                }}
              />
              {one === "user" ? "User" : "Admin token"}
            </label>
          ))}
        </fieldset>
        {way === "token" ? (
          <Field label="Admin token" hint="It lies in data/admin.token on the broker's machine.">
            {(id, described) => (
              <input
                key="token"
                id={id}
                name="token"
                type="password"
                autocomplete="current-password"
                required
                aria-describedby={described}
              />
            )}
          </Field>
        ) : (
          <>
            <Field label="Name">
              {(id) => (
                <input
                  key="name"
                  id={id}
                  name="name"
                  autocomplete="username"
                  autocapitalize="none"
                  spellcheck={false}
                  required
                />
              )}
            </Field>
            <Field label="Password">
              {(id) => (
                <input
                  key="password"
                  id={id}
                  name="password"
                  type="password"
                  autocomplete="current-password"
                  required
                />
              )}
            </Field>
          </>
        )}
        {problem && (
          <div class="callout bad" role="alert">
            <Icon name="danger" />
            <p>{problem}</p>
          </div>
        )}
        <button class="main" type="submit" disabled={busy} aria-busy={busy}>
          Log in
        </button>
      </form>
    </main>
  );
}
