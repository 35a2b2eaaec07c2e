// The frame: navigation, the key, and the page that the address names.
import { call, keepKey, key, keyWanted, organization } from "./api.js";
import { Chat } from "./chat.js";
import { effect, html, render, signal, useEffect, useRef, useState } from "./lib.js";
import { connected, followLive, requests } from "./live.js";

const PAGES = [
  { name: "chat", title: "Chat", icon: "M4 5h16v11H9l-5 4z" },
  { name: "now", title: "Now", icon: "M3 12h4l3-8 4 16 3-8h4" },
  { name: "money", title: "Money", icon: "M4 20V10l8-6 8 6v10zM9 20v-6h6v6" },
  { name: "doubt", title: "Doubt", icon: "M4 18h16M7 18V9m5 9V5m5 13v-6" },
  { name: "sessions", title: "Sessions", icon: "M4 6h16M4 12h16M4 18h10" },
];
const LAZY = {
  now: () => import("./now.js"),
  money: () => import("./money.js"),
  doubt: () => import("./doubt.js"),
  sessions: () => import("./sessions.js"),
};

/** Ids become parts of what the page asks for: nothing else may stand there. */
const ID = /^[0-9a-f]{8,32}$/;

/** The address behind #: ["chat", id]. */
const place = signal(read());

function read() {
  const [name, id] = location.hash.replace(/^#\/?/, "").split("/");
  if (!PAGES.some((page) => page.name === name)) return ["chat"];
  return ID.test(id ?? "") ? [name, id] : [name];
}

addEventListener("hashchange", () => {
  place.value = read();
});

function Icon({ path }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${path} /></svg>`;
}

function Navigation() {
  const here = place.value[0];
  const busy = requests.value.length;
  return html`<nav class="rail" aria-label="Pages">
    <a class="brand" href="#/chat"><span class="mark" aria-hidden="true"></span>ai-router</a>
    <ul>
      ${PAGES.map(
        ({ name, title, icon }) => html`<li key=${name}>
          <a href=${`#/${name}`} aria-current=${here === name ? "page" : undefined}>
            <${Icon} path=${icon} /><span>${title}</span>
            ${name === "now" && busy > 0 && html`<span class="count" aria-label=${`${busy} under way`}>${busy}</span>`}
          </a>
        </li>`,
      )}
    </ul>
    <div class="rail-foot">
      ${connected.value === false && keyWanted.value === null && html`<p class="lost" role="status">Not connected. Trying again.</p>`}
      <button type="button" class="quiet" onClick=${() => (keyWanted.value = "")}>
        Key<span class="only-large"> and organization</span>
      </button>
    </div>
  </nav>`;
}

function KeyDialog() {
  const dialog = useRef(null);
  const [tried, setTried] = useState({ key: key.value, organization: organization.value });
  const [problem, setProblem] = useState("");
  useEffect(() => {
    const before = document.activeElement;
    if (!dialog.current.open) dialog.current.showModal();
    return () => before?.focus();
  }, []);

  async function keep(event) {
    event.preventDefault();
    keepKey(tried.key.trim(), tried.organization.trim());
    try {
      await call("GET", "v1/models");
    } catch (error) {
      setProblem(error.status === 401 ? "This router does not know that key." : error.message);
    }
  }

  const field = (name) => ({
    value: tried[name],
    onInput: (event) => setTried({ ...tried, [name]: event.target.value }),
  });
  return html`<dialog ref=${dialog} aria-labelledby="key-title" onCancel=${() => (keyWanted.value = null)}>
    <form onSubmit=${keep}>
      <h2 id="key-title">Key and organization</h2>
      <p>${problem || keyWanted.value || "Both are kept until this tab is closed, and nowhere else."}</p>
      <label>Key <input type="password" autocomplete="off" ...${field("key")} /></label>
      <label>
        Organization
        <input autocomplete="off" placeholder="default" pattern="[A-Za-z0-9._-]{1,64}" ...${field("organization")} />
      </label>
      <div class="row end">
        <button type="button" class="quiet" onClick=${() => (keyWanted.value = null)}>Cancel</button>
        <button type="submit" class="primary">Keep</button>
      </div>
    </form>
  </dialog>`;
}

function Lazy({ name, parts }) {
  const [Page, setPage] = useState(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let wanted = true;
    LAZY[name]().then(
      (module) => wanted && setPage(() => module.default),
      () => wanted && setFailed(true),
    );
    return () => (wanted = false);
  }, [name]);
  if (failed) {
    return html`<div class="page"><p class="problem" role="alert">This page cannot be loaded. The router may have been
      stopped, or be of another version now.</p>
      <button type="button" onClick=${() => location.reload()}>Load it anew</button></div>`;
  }
  return Page === null
    ? html`<div class="page" aria-busy="true"><div class="skeleton tall"></div></div>`
    : html`<${Page} parts=${parts} />`;
}

function App() {
  const [name, ...parts] = place.value;
  const asks = keyWanted.value !== null;
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the page</a>
    <${Navigation} />
    <main id="main" tabindex=${name === "chat" ? -1 : 0} key=${key.value + organization.value}>
      ${name === "chat" ? html`<${Chat} id=${parts[0] ?? null} />` : html`<${Lazy} key=${name} name=${name} parts=${parts} />`}
    </main>
    ${asks && html`<${KeyDialog} />`}
  `;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

effect(() => {
  const page = PAGES.find(({ name }) => name === place.value[0]);
  document.title = `${page.title} · ai-router`;
});

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
followLive();
