// Now: the day in a sentence, what is under way, how the backends are, and the promises.
import { call } from "./api.js";
import { count, deciderName, ms, percent, routeKind, routeName, usd } from "./format.js";
import { html, useEffect, useState } from "./lib.js";
import { backends, requests, today } from "./live.js";

export default function Now() {
  return html`<div class="page">
    <h1 class="hidden">Now</h1>
    <${Sentence} day=${today.value} />
    <${UnderWay} />
    <${Backends} />
    <${Targets} day=${today.value} />
  </div>`;
}

function Sentence({ day }) {
  if (day === null) return html`<p class="sentence"><span class="skeleton"></span></p>`;
  if (day.error) return html`<p class="sentence problem">Today's sums cannot be had: ${day.error}.</p>`;
  if (day.requests === 0) return html`<p class="sentence">Nothing has been asked today.</p>`;
  const { ttft_ms: ttft, answered } = day;
  return html`<p class="sentence" data-testid="sentence">
    <b class="home">${answered ? percent(day.answered_locally / answered) : "Nothing"} answered at home</b>,${" "}
    <b>${day.in_doubt} of ${day.decided}</b> decisions in doubt,${" "}
    ${ttft?.p50 && html`first word after <b>${ms(ttft.p50)}</b>,${" "}`}
    <b>${usd(day.cost_usd)}</b> spent${day.cost_unknown > 0 && html` (and ${day.cost_unknown} of unknown cost)`},${" "}
    <b class="home">${usd(day.saved_usd)}</b> not spent.
    <span class="muted small">Since midnight UTC, ${count(day.requests, "request")}${ttft?.p50 ? "; the first word: median of the last 24 hours" : ""}.</span>
  </p>`;
}

const PHASES = {
  deciding: "is being decided",
  searching: "searches the web",
  queued: "waits",
  "backing off": "pauses before a retry",
  asking: "waits for the first word",
  streaming: "is being answered",
};

function UnderWay() {
  const list = requests.value;
  const [, tick] = useState(0);
  useEffect(() => {
    if (list.length === 0) return undefined;
    const timer = setInterval(() => tick((n) => n + 1), 500);
    return () => clearInterval(timer);
  }, [list.length === 0]);
  return html`<section aria-labelledby="under-way">
    <h2 id="under-way">Under way</h2>
    ${list.length === 0
      ? html`<p class="muted empty">Nothing at the moment.</p>`
      : html`<div class="table-box" tabindex="0" role="region" aria-labelledby="under-way"><table class="requests">
          <thead><tr><th>Route</th><th>What it does</th><th>Model</th><th class="number">Since</th><th></th></tr></thead>
          <tbody>${list.map((request) => html`<${Request} key=${request.session_id} request=${request} />`)}</tbody>
        </table></div>`}
  </section>`;
}

function Request({ request }) {
  const [stopping, setStopping] = useState(false);
  async function stop() {
    setStopping(true);
    await call("POST", `v1/requests/${encodeURIComponent(request.request_id)}/cancel`).catch(() => setStopping(false));
  }
  return html`<tr class=${request.own_job_of_a_chat_ui ? "grey" : ""}>
    <td><span class=${`tag ${routeKind(request.route)}`}>${routeName(request.route)}</span></td>
    <td>${request.waiting ? waitText(request.waiting) : PHASES[request.phase]}
      ${request.decided_by && html`<span class="muted small"> ${deciderName(request.decided_by)}</span>`}</td>
    <td>${request.model ?? "not chosen yet"}</td>
    <td class="number">${ms(Math.max(0, Date.now() - request.began_at * 1000))}</td>
    <td class="number">
      <button type="button" class="stop small" disabled=${stopping} onClick=${stop}
        aria-label=${`Stop ${request.request_id}`}>Stop</button>
    </td>
  </tr>`;
}

function waitText({ for: wanted, position, until }) {
  const left = Math.max(0, Math.round(until - Date.now() / 1000));
  return `waits for ${wanted.join(" or ")}, number ${position}${left ? `, about ${left} s to go` : ""}`;
}

const BREAKERS = { closed: ["ok", "takes requests"], "half-open": ["tried", "is tried again"], open: ["off", "is left alone"] };

function Backends() {
  return html`<section aria-labelledby="backends">
    <h2 id="backends">Backends</h2>
    ${backends.value.length === 0 && html`<div class="skeleton tall"></div>`}
    <ul class="cards">
      ${backends.value.map((backend) => html`<${Backend} key=${backend.name} backend=${backend} />`)}
    </ul>
  </section>`;
}

function Backend({ backend }) {
  const [kind, text] = BREAKERS[backend.breaker];
  const left = backend.opens_at && Math.max(0, Math.round(backend.opens_at - Date.now() / 1000));
  return html`<li class="card">
    <h3>${backend.name} <span class="muted small">${backend.local ? "at home" : "cloud"}</span></h3>
    <p class="muted small model">${backend.model}</p>
    <p><span class=${`state ${kind}`}></span>${text}${backend.why ? `: ${backend.why}` : ""}
      ${left ? html`, ${left} s more` : ""}</p>
    <p class="small">${count(backend.calls, "call")} under way, ${backend.waiting} waiting. ${healthText(backend)}</p>
    ${backend.last_error && html`<p class="small last-error">Last error: ${backend.last_error}</p>`}
  </li>`;
}

function healthText({ ok }) {
  if (ok === null) return "Its health is not known yet.";
  return ok ? "Its health check passes." : "Its health check fails.";
}

const TARGETS = {
  ttft_p95: ["First word", "19 of 20"],
  latency_p50: ["Whole answer", "half of all"],
  latency_p95: ["Whole answer", "19 of 20"],
  error_rate: ["Failures", "share of all"],
  cancel_p99: ["Stop", "99 of 100"],
};

function Targets({ day }) {
  if (!day?.targets) return null;
  return html`<section aria-labelledby="targets">
    <h2 id="targets">Promises, and the last 24 hours</h2>
    <ul class="cards targets">
      ${day.targets.map(({ name, target, actual, unit, status }) => {
        const [title, share] = TARGETS[name] ?? [name, ""];
        const value = actual === null ? "no data" : unit === "ms" ? ms(actual) : percent(actual, 1);
        return html`<li class="card" key=${name}>
          <h3>${title}</h3>
          <p class="muted small">${share}</p>
          <p class="figure">${value}</p>
          <p class="small"><span class=${`state ${{ ok: "ok", missed: "off" }[status] ?? "tried"}`}></span>
            ${status === "ok" ? "kept" : status === "missed" ? "missed" : "not known yet"}: ${targetText(target, unit)}</p>
        </li>`;
      })}
    </ul>
  </section>`;
}

function targetText(target, unit) {
  const [sign, limit] = target.split(" ");
  const value = unit === "ms" ? ms(Number(limit)) : percent(Number(limit), 1);
  return `${sign === "<=" ? "at most" : "at least"} ${value}`;
}
