// Money, and what left the house.
import { call } from "./api.js";
import { bytes, count, moment, percent, routeKind, usd } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";
import { useLoaded } from "./loaded.js";

const DAYS = [7, 30, 90];
const GROUPS = [["model", "Model"], ["route", "Route"], ["key", "Key"], ["day", "Day"]];

export default function Money() {
  const [days, setDays] = useState(30);
  const from = daysAgo(days - 1);
  const byDay = useLoaded((signal) => call("GET", `api/usage?by=day&from=${from}`, { signal }), [from]);
  const usage = byDay.value;
  return html`<div class="page">
    <h1>Money, and what left</h1>
    <div class="row">
      <div class="switch" role="group" aria-label="Period">
        ${DAYS.map(
          (number) => html`<button key=${number} type="button" aria-pressed=${days === number}
            onClick=${() => setDays(number)}>${number} days</button>`,
        )}
      </div>
    </div>
    ${byDay.error && html`<p class="problem" role="alert">${byDay.error.message}</p>`}
    ${!usage && !byDay.error && html`<div class="skeleton huge"></div>`}
    ${usage && html`
      <${Sums} usage=${usage} />
      <${House} usage=${usage} />
      <${Calls} />
      <${DayChart} usage=${usage} from=${from} days=${days} />
      <${Table} from=${from} />
      <${Judged} />
    `}
  </div>`;
}

function daysAgo(number) {
  return new Date(Date.now() - number * 86_400_000).toISOString().slice(0, 10);
}

function Sums({ usage }) {
  const { total, baseline } = usage;
  const unknown = total.cost_unknown > 0 ? `, and ${count(total.cost_unknown, "request")} of unknown cost` : "";
  return html`<p class="sentence">
    <b>${usd(total.cost_usd)}</b> spent on ${count(total.requests, "request")}${unknown}.${" "}
    ${total.saved_usd > 0
      ? html`<b class="home">${usd(total.saved_usd)}</b> not spent: ${baseline?.model ?? "the cloud"} would have cost that
          for what was answered at home.`
      : baseline?.usd_per_million_tokens ? "Nothing was spared yet." : "What was spared is not known: the cloud's price is not."}
  </p>`;
}

/** The ledger as a house: what was answered inside of it, and what went out. */
function House({ usage }) {
  const { total, left_local_network: left } = usage;
  const calls = left.reduce((sum, one) => sum + one.calls, 0);
  const sent = left.reduce((sum, one) => sum + one.bytes_sent, 0);
  const share = total.answered ? total.answered_locally / total.answered : null;
  const clouds = left.slice().sort((a, b) => b.calls - a.calls);
  const shown = clouds.slice(0, 5);
  const top = (index) => 34 + index * 38;
  const text = total.requests
    ? `${total.answered_locally} of ${count(total.answered, "answer")} came from home, ${total.kept_home} of them had to; ${count(calls, "call")} left with ${bytes(sent)}.`
    : "Nothing was asked.";
  return html`<section aria-labelledby="house">
    <h2 id="house">What stayed, and what left</h2>
    <div class="house">
      <svg viewBox="0 0 640 240" role="img" aria-label=${text}>
        <path class="walls" d="M40 108 160 26 280 108V216H40z" />
        <path class="roof" d="M22 120 160 24 298 120" />
        <text class="figure" x="160" y="138" text-anchor="middle">${share === null ? "–" : percent(share)}</text>
        <text x="160" y="160" text-anchor="middle">answered at home</text>
        <text class="muted" x="160" y="180" text-anchor="middle">${count(total.answered_locally, "answer")}</text>
        ${total.kept_home > 0 && html`<text class="muted" x="160" y="200" text-anchor="middle">${total.kept_home} had to stay</text>`}
        ${shown.length === 0 && html`<text class="muted" x="470" y="124" text-anchor="middle">Nothing left the house.</text>`}
        ${shown.map(
          (one, index) => html`<g key=${one.backend + one.model + one.purpose}>
            <path class=${`way ${one.purpose === "search" ? "search" : "cloud"}`}
              d=${`M282 162C350 162 350 ${top(index)} 404 ${top(index)}`}
              stroke-width=${1.5 + Math.min(7, Math.log10(1 + one.bytes_sent))} />
            <circle class=${one.purpose === "search" ? "search" : "cloud"} cx="412" cy=${top(index)} r="7" />
            <text class="label" x="428" y=${top(index) - 1}>${shortened(`${one.backend}: ${PURPOSES[one.purpose] ?? one.purpose}`)}</text>
            <text class="label muted" x="428" y=${top(index) + 14}>
              ${count(one.calls, "call")}, ${bytes(one.bytes_sent)}, ${spent(one)}
            </text>
          </g>`,
        )}
        ${clouds.length > shown.length &&
        html`<text class="label muted" x="428" y=${top(shown.length) - 6}>and ${clouds.length - shown.length} more</text>`}
      </svg>
    </div>
    <ul class="ways">
      ${clouds.map((one) => html`<li key=${one.backend + one.model + one.purpose}>
        <span class=${`swatch ${one.purpose === "search" ? "search" : "cloud"}`}></span>
        ${one.backend}: ${PURPOSES[one.purpose] ?? one.purpose}, ${count(one.calls, "call")}, ${bytes(one.bytes_sent)}, ${spent(one)}
      </li>`)}
    </ul>
    <p>${text}</p>
  </section>`;
}

/** What calls cost, as far as it is known. */
function spent({ cost_usd: known, cost_unknown: unknown, calls }) {
  if (unknown === calls) return "cost unknown";
  return unknown ? `${usd(known)} + ${unknown} unknown` : usd(known);
}

function shortened(text) {
  return text.length > 30 ? `${text.slice(0, 29)}…` : text;
}

const PURPOSES = { answer: "answers", search: "web searches", classification: "decisions", speculation: "answers begun early", shadow: "answers to compare with", judgement: "judgements" };

const SENT = {
  answer: "This conversation was sent, with what was found on the web, if that was searched.",
  search: "The end of this conversation was sent, with the date.",
  classification: "The end of this conversation was sent.",
  judgement: "The end of this conversation was sent, with the answer from home and the cloud's.",
};

function Calls() {
  const [pages, setPages] = useState(null);
  const [next, setNext] = useState(null);
  const [problem, setProblem] = useState(null);
  const load = (before) =>
    call("GET", `api/egress?limit=25${before ? `&before=${before}` : ""}`).then(
      (page) => {
        setPages((old) => (before ? [...old, ...page.data] : page.data));
        setNext(page.next);
      },
      (error) => setProblem(error.message),
    );
  useEffect(() => void load(null), []);
  if (problem) return html`<p class="problem">${problem}</p>`;
  return html`<section aria-labelledby="calls">
    <h2 id="calls">Each call that left</h2>
    <p class="muted small">The newest first, whatever the period above.</p>
    ${pages === null
      ? html`<div class="skeleton tall"></div>`
      : pages.length === 0
      ? html`<p class="muted empty">None did.</p>`
      : html`<ul class="calls">${pages.map((one) => html`<${Call} key=${one.id} one=${one} />`)}</ul>`}
    ${next && html`<button type="button" class="quiet" onClick=${() => load(next)}>Older ones</button>`}
  </section>`;
}

function Call({ one }) {
  const [words, setWords] = useState(null);
  async function show() {
    if (words !== null) return setWords(null);
    try {
      setWords(wordsOf(await call("GET", `api/sessions/${one.session_id}`)));
    } catch (error) {
      setWords([["Not kept", error.message]]);
    }
    return undefined;
  }
  return html`<li>
    <div class="row call">
      <span class=${`tag ${one.purpose === "search" ? "search" : routeKind(one.backend)}`}>${one.backend}</span>
      <span class="grow">${PURPOSES[one.purpose] ?? one.purpose} <span class="muted small">${moment(one.at)}, ${one.model}</span></span>
      <span class="number">${bytes(one.bytes_sent)} out, ${bytes(one.bytes_received)} in</span>
      <span class="number price">${usd(one.cost_usd)}</span>
      <button type="button" class="quiet small" aria-expanded=${words !== null} onClick=${show}>
        ${words ? "Hide the words" : "Show the words that left"}
      </button>
    </div>
    ${words && html`<div class="words"><p class="muted small">${SENT[one.purpose] ?? SENT.answer}</p>${words.map(([who, text]) => html`<p><b>${who}</b> ${text}</p>`)}</div>`}
  </li>`;
}

/** What the conversation said, as pairs of who and what. */
export function wordsOf(session) {
  const messages = session.client_messages;
  if (!Array.isArray(messages) || messages.length === 0) {
    return [["Not kept", `SESSION_BODIES=${session.bodies ?? "off"} keeps no words.`]];
  }
  return messages.map(({ role, content }) => [role ?? "?", textOf(content)]);
}

export function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return content === null || content === undefined ? "" : JSON.stringify(content);
  return content.map((part) => part.text ?? `[${part.type ?? "a part without text"}]`).join("\n");
}

function Table({ from }) {
  const [by, setBy] = useState("model");
  const { value, error } = useLoaded((signal) => call("GET", `api/usage?by=${by}&from=${from}`, { signal }), [by, from]);
  const column = { key: "client" }[by] ?? by;
  return html`<section aria-labelledby="table">
    <h2 id="table">By whom and what</h2>
    <div class="switch" role="group" aria-label="Grouped by">
      ${GROUPS.map(([name, title]) => html`<button key=${name} type="button" aria-pressed=${by === name}
        onClick=${() => setBy(name)}>${title}</button>`)}
    </div>
    ${error && html`<p class="problem">${error.message}</p>`}
    <div class="table-box" tabindex="0" role="region" aria-labelledby="table"><table>
      <thead><tr><th>${GROUPS.find(([name]) => name === by)[1]}</th><th class="number">Requests</th>
        <th class="number">Tokens in</th><th class="number">Tokens out</th><th class="number">Cost</th>
        <th class="number">Not spent</th></tr></thead>
      <tbody>
        ${(value?.groups ?? []).map(
          (row) => html`<tr key=${row[column]}>
            <td>${row[column] || "none"}</td><td class="number">${row.requests}</td>
            <td class="number">${row.input_tokens.toLocaleString("en")}</td>
            <td class="number">${row.output_tokens.toLocaleString("en")}</td>
            <td class="number">${usd(row.cost_usd)}${row.cost_unknown > 0 ? ` + ${row.cost_unknown} unknown` : ""}</td>
            <td class="number">${usd(row.saved_usd)}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
  </section>`;
}

/** Answers from home beside the cloud's. Nothing is shown where none was compared, or where they are not ours to see. */
function Judged() {
  const { value } = useLoaded((signal) => call("GET", "api/judgements", { signal }), []);
  const routes = Object.entries(value?.routes ?? {});
  if (routes.length === 0) return null;
  const judges = [...new Set(routes.map(([, one]) => one.judge))].join(", ");
  return html`<section aria-labelledby="judged">
    <h2 id="judged">Home beside the cloud</h2>
    <p class="muted small">What ${judges} prefers, asked in both orders without names. ${usd(value.spent_usd)} this
      month${value.budget_usd > 0 ? html`, of ${usd(value.budget_usd)}` : ""}.</p>
    <div class="table-box" tabindex="0" role="region" aria-labelledby="judged"><table>
      <thead><tr><th>Route</th><th>Home</th><th>Cloud</th><th class="number">Compared</th>
        <th class="number">Home won</th><th class="number">Ties</th><th class="number">Cloud won</th>
        <th class="number">Home's share, 95 %</th></tr></thead>
      <tbody>
        ${routes.map(
          ([route, one]) => html`<tr key=${route}>
            <td>${route}</td><td>${one.local}</td><td>${one.cloud}</td><td class="number">${one.compared}</td>
            <td class="number">${one.won_by_local}</td><td class="number">${one.ties}</td>
            <td class="number">${one.won_by_cloud}</td><td class="number">${shareOf(one)}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
    <p class="muted small">A tie counts half. It is one too where the judge prefers another answer once their order is changed.</p>
  </section>`;
}

function shareOf({ rate, interval }) {
  return rate === null ? "–" : `${percent(rate)} (${percent(interval[0])} to ${percent(interval[1])})`;
}

/** Cost by day against what the cloud would have cost. uPlot is loaded here, and nowhere else. */
function DayChart({ usage, from, days }) {
  const box = useRef(null);
  useEffect(() => {
    let plot = null;
    let wanted = true;
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = new URL("./vendor/uplot.css", import.meta.url);
    if (!document.querySelector(`link[href="${style.href}"]`)) document.head.append(style);
    import("./vendor/uplot.js").then(({ default: Plot }) => {
      if (!wanted || !box.current) return;
      plot = new Plot(options(Plot, box.current), series(usage, from, days), box.current);
    });
    const observer = new ResizeObserver(() => {
      // It may be told once more when the page has been left.
      if (box.current) plot?.setSize({ width: box.current.clientWidth, height: 220 });
    });
    observer.observe(box.current);
    return () => {
      wanted = false;
      observer.disconnect();
      plot?.destroy();
    };
  }, [usage]);
  return html`<section aria-labelledby="days">
    <h2 id="days">By day</h2>
    <p class="legend"><span class="swatch cloud"></span>spent <span class="swatch home"></span>what the cloud would have cost</p>
    <div class="chart" ref=${box} aria-hidden="true"></div>
    <p class="muted small">The same figures are in the table below, by day.</p>
  </section>`;
}

function series(usage, from, days) {
  const byDay = new Map(usage.groups.map((row) => [row.day, row]));
  const first = Date.parse(`${from}T00:00:00Z`) / 1000;
  const moments = Array.from({ length: days }, (_, index) => first + index * 86_400);
  const rows = moments.map((at) => byDay.get(new Date(at * 1000).toISOString().slice(0, 10)));
  return [moments, rows.map((row) => (row ? row.cost_usd + row.saved_usd : 0)), rows.map((row) => row?.cost_usd ?? 0)];
}

function options(Plot, element) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  const bars = (name) => ({ stroke: colour(name), fill: colour(name), paths: Plot.paths.bars({ size: [0.7, 40] }), points: { show: false } });
  return {
    width: element.clientWidth,
    height: 220,
    legend: { show: false },
    cursor: { show: false },
    scales: { y: { range: (_, low, high) => [0, high || 1] } },
    axes: [
      { ...axis, values: (_, moments) => moments.map((at) => new Date(at * 1000).toLocaleDateString([], { day: "numeric", month: "short", timeZone: "UTC" })) },
      { ...axis, size: 88, values: (_, values) => values.map((value) => usd(value)) },
    ],
    series: [{}, bars("--home-soft"), bars("--cloud")],
  };
}
