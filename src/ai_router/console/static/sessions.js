// Sessions: all requests that were kept, and one of them in full.
import { call } from "./api.js";
import { Feedback } from "./badge.js";
import { deciderName, moment, ms, routeKind, routeName, sureness, usd } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";
import { useLoaded } from "./loaded.js";
import { textOf } from "./money.js";
import { Waterfall } from "./waterfall.js";

const ROUTES = ["primary", "xai", "enrich", "meta"];
/** Since when routes of one's own are looked for. */
const DAYS = 90;
const STATUSES = [["ok", "answered"], ["error", "failed"], ["cancelled", "stopped"]];

export default function Sessions({ parts }) {
  return parts[0] ? html`<${Session} id=${parts[0]} />` : html`<${List} />`;
}

function List() {
  const [filter, setFilter] = useState({ text: "", route: "", status: "", slow: "" });
  const [typed, setTyped] = useState("");
  const timer = useRef(0);
  const [rows, setRows] = useState(null);
  const [next, setNext] = useState(null);
  const [problem, setProblem] = useState(null);
  const [partial, setPartial] = useState(false);

  async function load(before, signal) {
    const asked = Object.entries({ ...filter, ...(before ? { before } : {}) }).filter(([, value]) => value);
    try {
      const page = await call("GET", `api/sessions?${new URLSearchParams([["limit", "50"], ...asked])}`, { signal });
      setRows((old) => (before ? [...old, ...page.data] : page.data));
      setNext(page.next);
      setPartial(!page.complete);
      setProblem(null);
    } catch (error) {
      if (error.name !== "AbortError") setProblem(error.message);
    }
  }
  useEffect(() => {
    const abort = new AbortController();
    load(null, abort.signal);
    return () => abort.abort();
  }, [filter]);
  const search = (event) => {
    const text = event.target.value.slice(0, 200);
    setTyped(text);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setFilter((old) => ({ ...old, text })), 250);
  };
  const routes = useRoutes();
  const choice = (name) => ({ value: filter[name], onChange: (event) => setFilter({ ...filter, [name]: event.target.value }) });
  return html`<div class="page">
    <h1>Sessions</h1>
    <form class="row filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label class="grow"><span class="hidden">Words</span>
        <input type="search" placeholder="Words that were said" value=${typed} onInput=${search} /></label>
      <label><span class="hidden">Route</span><select ...${choice("route")}>
        <option value="">Every route</option>
        ${routes.map((route) => html`<option key=${route} value=${route}>${routeName(route)}</option>`)}</select></label>
      <label><span class="hidden">Status</span><select ...${choice("status")}>
        <option value="">Every ending</option>
        ${STATUSES.map(([status, title]) => html`<option key=${status} value=${status}>${title}</option>`)}</select></label>
      <label><span class="hidden">Speed</span><select ...${choice("slow")}>
        <option value="">Fast and slow</option><option value="true">Slow ones</option></select></label>
    </form>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${rows === null && !problem && html`<div class="skeleton huge"></div>`}
    ${rows?.length === 0 && html`<p class="muted empty">None that match.</p>`}
    ${rows?.length > 0 && html`<ul class="sessions">${rows.map((row) => html`<${Row} key=${row.session_id} row=${row} />`)}</ul>`}
    ${partial && html`<p class="muted small">The search took long and stopped; there may be more.</p>`}
    ${next && html`<button type="button" class="quiet" onClick=${() => load(next)}>Older ones</button>`}
  </div>`;
}

/** The routes that there are always, and those that requests took lately: providers that were named, for one. */
function useRoutes() {
  const from = new Date(Date.now() - DAYS * 86_400_000).toISOString().slice(0, 10);
  const { value } = useLoaded((signal) => call("GET", `api/usage?by=route&from=${from}`, { signal }), [from]);
  const taken = (value?.groups ?? []).map((group) => group.route).filter((route) => route !== "none");
  return [...new Set([...ROUTES, ...taken])];
}

function Row({ row }) {
  const ending = row.status === "ok" ? null : STATUSES.find(([status]) => status === row.status)?.[1];
  return html`<li><a href=${`#/sessions/${row.session_id}`}>
    <span class="opening">${row.opening ?? "(its words were not kept)"}</span>
    <span class="row small">
      <span class=${`tag ${routeKind(row.route)}`}>${routeName(row.route)}</span>
      <span class="muted grow">${moment(row.timestamp)} · ${deciderName(row.decided_by)}</span>
      ${ending && html`<span class="ended">${ending}</span>`}
      <span class="number">${ms(row.total_ms)}</span>
      <span class="number">${usd(row.cost_usd)}</span>
    </span>
  </a></li>`;
}

function Session({ id }) {
  const { value: session, error } = useLoaded((signal) => call("GET", `api/sessions/${id}`, { signal }), [id]);
  return html`<div class="page">
    <p><a href="#/sessions">All sessions</a></p>
    <h1>${session ? moment(session.timestamp) : "A session"}</h1>
    ${error && html`<p class="problem" role="alert">${error.message}</p>`}
    ${!session && !error && html`<div class="skeleton huge"></div>`}
    ${session && html`<${Whole} session=${session} />`}
  </div>`;
}

function Whole({ session }) {
  const decision = session.decision ?? {};
  return html`
    <dl class="facts">
      <div><dt>Route</dt><dd><span class=${`tag ${routeKind(session.route)}`}>${routeName(session.route)}</span>
        ${" "}${deciderName(decision.decided_by)}${decision.decided_by === "explicit" ? "" : `, ${sureness(decision.confidence)}`}</dd></div>
      <div><dt>Reason</dt><dd>${session.reason || "none was given"}</dd></div>
      <div><dt>Model</dt><dd>${session.answered_by ?? "none answered"}</dd></div>
      <div><dt>Ended</dt><dd>${session.status}${session.error ? `: ${session.error}` : ""}</dd></div>
      <div><dt>Cost</dt><dd>${usd(session.cost_usd)}</dd></div>
      <div><dt>Request</dt><dd><code>${session.request_id}</code></dd></div>
    </dl>
    <${Waterfall} session=${session} />
    <${Feedback} request=${session.request_id} label=${decision.label} />
    <h2>What was said</h2>
    ${Array.isArray(session.client_messages) && session.client_messages.length > 0
      ? session.client_messages.map(({ role, content }, index) => html`<div class="turn" key=${index}>
          <h3>${role}</h3><div class="said">${textOf(content)}</div></div>`)
      : html`<p class="muted">SESSION_BODIES=${session.bodies} keeps no words.</p>`}
    ${session.response?.reasoning_content && html`<div class="turn"><h3>thoughts</h3><div class="said">${session.response.reasoning_content}</div></div>`}
    ${session.response?.content && html`<div class="turn answer"><h3>answer</h3><div class="said">${textOf(session.response.content)}</div></div>`}
  `;
}
