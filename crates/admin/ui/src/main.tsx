// The page: who is logged in, where they are, and what always shows.

import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { logOut, may, session, whoAmI } from "./api";
import { connection, start } from "./live";
import { Button, Failure, Loading, Time } from "./parts/basic";
import { setFreeze, useFreeze } from "./parts/freeze";
import { Icon, type IconName } from "./parts/icon";
import { route, to } from "./route";
import { Toasts, act } from "./toast";
import { Audit } from "./views/audit";
import { Broker, ClientPage } from "./views/broker";
import { DevicePage } from "./views/device";
import { Devices } from "./views/devices";
import { FirmwareList } from "./views/firmware";
import { FirmwarePage } from "./views/firmware-page";
import { Login } from "./views/login";
import { Overview } from "./views/overview";
import { RolloutPage } from "./views/rollout";
import { Rollouts } from "./views/rollouts";
import { Deploy, Upload } from "./views/upload";

const PLACES: [string, string, IconName, (() => boolean)?][] = [
  ["", "Overview", "overview"],
  ["devices", "Devices", "devices"],
  ["rollouts", "Rollouts", "rollouts"],
  ["firmware", "Firmware", "firmware"],
  ["upload", "Upload", "upload", may.operate],
  ["broker", "Broker", "broker"],
  ["audit", "Audit", "audit", may.operate],
];

function View() {
  const [first = "", second, third] = route.value.path;
  switch (first) {
    case "":
      return <Overview />;
    case "devices":
      return second ? <DevicePage key={second} id={second} /> : <Devices />;
    case "rollouts":
      return second ? <RolloutPage key={second} id={second} /> : <Rollouts />;
    case "firmware":
      return second ? <FirmwarePage key={second} id={second} /> : <FirmwareList />;
    case "upload":
      if (may.operate()) return <Upload />;
      break;
    case "deploy":
      if (may.operate() && second) return <Deploy key={second} id={second} />;
      break;
    case "broker":
      return second === "clients" && third ? <ClientPage key={third} id={third} /> : <Broker />;
    case "audit":
      if (may.operate()) return <Audit />;
      break;
  }
  return <Failure error={new Error("There is nothing here, or not for your role.")} />;
}

function Navigation() {
  const here = route.value.path[0] ?? "";
  return (
    <nav class="places" aria-label="Places">
      {PLACES.filter(([, , , shown]) => shown?.() ?? true).map(([place, text, icon]) => (
        <a
          key={place}
          href={to(place ? [place] : [])}
          aria-current={here === place || (place === "firmware" && here === "deploy") ? "page" : undefined}
        >
          <Icon name={icon} />
          <span>{text}</span>
        </a>
      ))}
    </nav>
  );
}

function Frozen() {
  const freeze = useFreeze();
  const { frozen, at, by } = freeze.value ?? {};
  if (!frozen) return null;
  return (
    <div class="banner frozen" role="status">
      <Icon name="snow" />
      <span>
        All offers are stopped{by ? ` by ${by}` : ""}
        {at ? (
          <>
            {" "}
            (<Time at={at} />)
          </>
        ) : null}
        . What had begun finishes.
      </span>
      {may.operate() && (
        <Button icon="play" onClick={() => setFreeze(false).then(freeze.reload)}>
          Unfreeze
        </Button>
      )}
    </div>
  );
}

function Page() {
  const main = useRef<HTMLElement>(null);
  const place = route.value.path.join("/");
  const first = useRef(true);
  useEffect(() => start(), []);
  useEffect(() => {
    const title = main.current?.querySelector("h1")?.textContent?.trim();
    document.title = title ? `${title} · fuotad` : "fuotad";
    // A reader that follows a link is read the new page, not the rest of the old one.
    if (!first.current) main.current?.focus();
    first.current = false;
    scrollTo(0, 0);
  }, [place]);
  const live = connection.value;
  return (
    <div class="page">
      <a class="skip" href="#main" onClick={(event) => {
        event.preventDefault();
        main.current?.focus();
      }}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href={to([])}>
          <img src="/icon.svg" alt="" width="28" height="28" />
          <span>fuotad</span>
        </a>
        <Navigation />
        <div class="who">
          <span class={`stream ${live}`} role="status">
            <span class="hidden">Changes are </span>
            {live === "live" ? "live" : live === "lost" ? "not live" : "connecting"}
          </span>
          <span class="name" title={`version ${session.value?.version}`}>
            {session.value?.name}
            <span class="muted sub">{session.value?.role}</span>
          </span>
          <button class="plain" aria-label="Log out" title="Log out" onClick={() => void act(logOut, "Logged out.")}>
            <Icon name="out" />
          </button>
        </div>
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        {live === "lost" && (
          <div class="banner lost" role="status">
            <Icon name="warning" />
            <span>The broker does not answer. What you see is old; this page goes on by itself.</span>
          </div>
        )}
        <Frozen />
        <View />
      </main>
    </div>
  );
}

function App() {
  useEffect(() => {
    const ask = () => {
      whoAmI().catch(() => setTimeout(ask, 2_000));
    };
    ask();
  }, []);
  return (
    <>
      {session.value === undefined ? (
        <Loading />
      ) : session.value === null ? (
        <Login />
      ) : (
        <Page key={session.value.name} />
      )}
      <Toasts />
    </>
  );
}

const root = document.getElementById("app");
if (root) render(<App />, root);
