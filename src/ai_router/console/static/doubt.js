// Doubt: how sure the latest decisions were, what another threshold would change, and a place to try prompts.
import { call } from "./api.js";
import { LABELS, deciderName, moment, percent, routeKind, routeName, sureness, usd, ms } from "./format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { useLoaded } from "./loaded.js";

const LOWEST = 0.3;
/** With three labels the likeliest has at least a third. */
const KINDS = { MODERATE: "home", COMPLEX: "cloud", ENRICH: "search" };

export default function Doubt() {
  const [found, setFound] = useState(null);
  const doubt = useLoaded((signal) => untilComplete(signal, setFound), []);
  return html`<div class="page">
    <h1>Doubt</h1>
    <${Playground} />
    ${doubt.error && html`<p class="problem" role="alert">${doubt.error.message}</p>`}
    ${!found && !doubt.error && html`<section aria-busy="true"><h2>The latest decisions</h2>
      <p class="notice" role="status">The in-process model judges the stored decisions anew.</p>
      <div class="skeleton huge"></div></section>`}
    ${found && html`<${Decisions} found=${found} />`}
  </div>`;
}

/** Each answer comes after two seconds at the latest; the next one knows more. */
async function untilComplete(signal, show) {
  for (let complete = false; !complete; ) {
    const found = await call("GET", "api/doubt?limit=300", { signal });
    show(found);
    ({ complete } = found);
  }
}

function Decisions({ found }) {
  const points = found.data.filter((point) => point.guess !== null);
  const [threshold, setThreshold] = useState(found.threshold ?? 0.875);
  const [chosen, setChosen] = useState(null);
  const replay = useReplay(threshold, points.length);
  if (found.data.length === 0) {
    return html`<section><h2>The latest decisions</h2><p class="muted empty">Nothing has been decided yet.</p></section>`;
  }
  if (points.length === 0) {
    return html`<section><h2>The latest decisions</h2>
      <p class="muted empty">None of the ${found.data.length} decisions can be judged anew: their words were not kept, or
      FAST_ROUTING is off.</p></section>`;
  }
  const moved = new Set((replay?.moved ?? []).map((move) => move.session_id));
  const unsure = points.filter((point) => point.guess.confidence < threshold).length;
  return html`<section aria-labelledby="decisions">
    <h2 id="decisions">The latest ${points.length} decisions</h2>
    ${!found.complete && html`<p class="notice" role="status">Judging older ones anew; more dots are coming.</p>`}
    <p class="muted">Each dot is a decision, where the in-process model is that sure of it. Right of the line it decides
      alone, in milliseconds; left of it ${found.has_classifier ? "the classifier is asked" : "it would leave the decision to a classifier, if there were one"}${" "}
      (${unsure} of ${points.length}). Drag the line to see what would change.</p>
    <${Axis} points=${points} threshold=${threshold} moved=${moved} chosen=${chosen} choose=${setChosen} />
    <label class="threshold">
      <span>Sure from <output>${percent(threshold)}</output> on
        ${found.threshold !== null && Math.abs(threshold - found.threshold) > 0.004 && html`
          <button type="button" class="bare" onClick=${() => setThreshold(found.threshold)}>back to
          ${" "}${percent(found.threshold)}, as it is</button>`}</span>
      <input type="range" min=${LOWEST} max="1" step="0.005" value=${threshold}
        onInput=${(event) => setThreshold(Number(event.target.value))} />
    </label>
    <p class="legend">${Object.entries(LABELS).map(([label, title]) => html`<span key=${label}><span
      class=${`swatch ${KINDS[label]}`}></span>went ${{ local: "home", cloud: "to the cloud", searched: "to the web first" }[title]} </span>`)}</p>
    <${Change} replay=${replay} />
    <${Nearest} points=${points} threshold=${threshold} chosen=${chosen} choose=${setChosen} />
    ${chosen && html`<${Point} point=${found.data.find((one) => one.session_id === chosen)} />`}
  </section>`;
}

/** The replay for a threshold, asked for when it has rested for a moment. The last one stays meanwhile. */
function useReplay(threshold, known) {
  const [replay, setReplay] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        setReplay(await call("GET", `api/replay?limit=300&threshold=${threshold}`, { signal: abort.signal }));
      } catch (error) {
        if (error.name !== "AbortError") setReplay({ error: error.message });
      }
    }, 120);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [threshold, known]);
  return replay;
}

const HEIGHT = 180;
const GROUND = HEIGHT - 8;

/** Where a confidence is on an axis of that width, in pixels. */
function x(confidence, width) {
  return 8 + ((Math.max(LOWEST, confidence) - LOWEST) / (1 - LOWEST)) * (width - 16);
}

/** Dots of nearly the same confidence are piled up, from the ground. */
function piled(points, width) {
  const piles = new Map();
  return points.map((point) => {
    const column = Math.floor(x(point.guess.confidence, width) / 9);
    const height = piles.get(column) ?? 0;
    piles.set(column, height + 1);
    return { point, cx: column * 9 + 4.5, level: height };
  });
}

/** The width of an element, as it is and becomes. */
function useWidth(element) {
  const [width, setWidth] = useState(900);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => element.current && setWidth(element.current.clientWidth));
    observer.observe(element.current);
    setWidth(element.current.clientWidth);
    return () => observer.disconnect();
  }, []);
  return width;
}

function Axis({ points, threshold, moved, chosen, choose }) {
  const box = useRef(null);
  const width = useWidth(box);
  const dots = piled(points, width);
  const step = Math.min(10, (GROUND - 12) / Math.max(1, ...dots.map(({ level }) => level + 1)));
  const at = x(threshold, width);
  const marks = width < 500 ? [0.3, 0.5, 0.7, 1] : [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
  return html`<div class="axis" ref=${box}>
    <svg width=${width} height=${HEIGHT} role="img"
      aria-label=${`${points.length} decisions by confidence; the threshold is at ${percent(threshold)}`}>
      <rect class="sure" x=${at} y="0" width=${Math.max(0, width - at)} height=${GROUND} />
      <line class="ground" x1="0" x2=${width} y1=${GROUND} y2=${GROUND} />
      ${dots.map(({ point, cx, level }) => html`<circle
        key=${point.session_id}
        class=${`${KINDS[point.label]} ${moved.has(point.session_id) ? "moved" : ""} ${chosen === point.session_id ? "chosen" : ""}`}
        cx=${cx} cy=${GROUND - 6 - level * step} r="4.2"
        onClick=${() => choose(point.session_id)}><title>${point.opening}</title></circle>`)}
      <line class="limit" x1=${at} x2=${at} y1="0" y2=${GROUND} />
    </svg>
    <div class="scale" aria-hidden="true">${marks.map((value) => html`<span
      key=${value} style=${{ left: `${x(value, width)}px` }}>${percent(value)}</span>`)}</div>
  </div>`;
}

function Change({ replay }) {
  if (replay === null) return html`<p class="change" aria-busy="true"><span class="skeleton"></span></p>`;
  if (replay.error) return html`<p class="problem">${replay.error}</p>`;
  const ways = new Map();
  for (const { from, to } of replay.moved) ways.set(`${from}>${to}`, (ways.get(`${from}>${to}`) ?? 0) + 1);
  const { cost_usd: cost, leaves, asks_classifier: asks } = replay;
  return html`<div class="change" role="status">
    <p><b>${replay.moved.length === 0 ? "Nothing would have gone elsewhere" : `${replay.moved.length} of ${replay.sessions} would have gone elsewhere`}</b>
      ${ways.size > 0 && html`: ${[...ways].map(([way, number]) => {
        const [from, to] = way.split(">");
        return `${number} from ${routeName(from)} to ${routeName(to)}`;
      }).join(", ")}`}.</p>
    <dl class="facts across">
      <div><dt>Cost</dt><dd>${usd(cost.before)} → ${usd(cost.after)}</dd></div>
      <div><dt>Left the house</dt><dd>${leaves.before} → ${leaves.after}</dd></div>
      ${asks && html`<div><dt>Asked the classifier</dt><dd>${asks.before} → ${asks.after}</dd></div>`}
      ${replay.wait_ms.before !== null && html`<div><dt>First word, half of all</dt><dd>${ms(replay.wait_ms.before)} → ${ms(replay.wait_ms.after)}</dd></div>`}
    </dl>
    <p class="muted small">Estimates, from ${replay.sessions} stored sessions: what moves costs and takes what others of its
      new route did. What the classifier would have said to those it was not asked about is not known; they stay.
      ${replay.without_text > 0 && `${replay.without_text} more have no words to judge.`}</p>
  </div>`;
}

/** The decisions nearest to the line: the ones to look at, and the way to the dots without a mouse. */
function Nearest({ points, threshold, chosen, choose }) {
  const distance = (point) => Math.abs(point.guess.confidence - threshold);
  const near = points.slice().sort((a, b) => distance(a) - distance(b)).slice(0, 6);
  return html`<h3>Nearest to the line</h3>
    <ul class="nearest">
      ${near.map((point) => html`<li key=${point.session_id}>
        <button type="button" class="quiet" aria-pressed=${chosen === point.session_id}
          onClick=${() => choose(point.session_id)}>
          <span class="number">${percent(point.guess.confidence)}</span>
          <span class=${`tag ${KINDS[point.label]}`}>${LABELS[point.label]}</span>
          <span class="opening">${point.opening}</span>
        </button>
      </li>`)}
    </ul>`;
}

function Point({ point }) {
  if (!point) return null;
  return html`<div class="card point">
    <p class="said">${point.opening}</p>
    <dl class="facts across">
      <div><dt>Went</dt><dd><span class=${`tag ${routeKind(point.route)}`}>${routeName(point.route)}</span></dd></div>
      <div><dt>By</dt><dd>${deciderName(point.decided_by)}</dd></div>
      <div><dt>The in-process model says</dt><dd>${LABELS[point.guess.label]}, ${sureness(point.guess.confidence)}</dd></div>
      <div><dt>When</dt><dd>${moment(point.timestamp)}</dd></div>
    </dl>
    <${Shares} shares=${point.guess.probabilities} />
    <p><a href=${`#/sessions/${point.session_id}`}>The whole session</a></p>
  </div>`;
}

function Shares({ shares }) {
  return html`<ul class="shares">
    ${Object.entries(shares).map(([label, share]) => html`<li key=${label}>
      <span>${LABELS[label] ?? label}</span>
      <span class="track" aria-hidden="true"><span class=${`bar ${KINDS[label]}`} style=${{ left: 0, width: `${100 * share}%` }}></span></span>
      <span class="number">${percent(share)}</span>
    </li>`)}
  </ul>`;
}

function Playground() {
  const [text, setText] = useState("");
  const [result, setResult] = useState(null);
  const [busy, setBusy] = useState(false);
  async function decide(event) {
    event.preventDefault();
    if (!text.trim()) return;
    setBusy(true);
    try {
      setResult(await call("POST", "v1/route", { body: { model: "auto", messages: [{ role: "user", content: text }] } }));
    } catch (error) {
      setResult({ error: error.message });
    }
    setBusy(false);
  }
  return html`<section aria-labelledby="try">
    <h2 id="try">Where would this go?</h2>
    <form class="playground" onSubmit=${decide}>
      <label class="hidden" for="try-text">A prompt to try</label>
      <textarea id="try-text" rows="2" placeholder="A prompt. It is decided, and not sent." value=${text}
        onInput=${(event) => setText(event.target.value)}
        onKeyDown=${(event) => event.key === "Enter" && !event.shiftKey && !event.isComposing && decide(event)}></textarea>
      <button type="submit" class="primary" disabled=${busy || !text.trim()}>Decide</button>
    </form>
    <div role="status">${result && (result.error ? html`<p class="problem">${result.error}</p>` : html`<${Verdict} result=${result} />`)}</div>
  </section>`;
}

function Verdict({ result }) {
  const runnerUp = result.runner_up;
  return html`<div class="card verdict">
    <p class="sentence"><span class=${`tag ${KINDS[result.label] ?? "own"}`}>${LABELS[result.label] ?? result.label}</span>
      ${" "}${deciderName(result.decided_by)}, ${sureness(result.confidence)}${runnerUp && html`; next would be <b>${LABELS[runnerUp.label]}</b>, ${percent(runnerUp.confidence)}`}.</p>
    <dl class="facts">
      <div><dt>Reason</dt><dd>${result.reason}</dd></div>
      ${result.ask && html`<div><dt>Judged</dt><dd>${result.ask}</dd></div>`}
      <div><dt>Would ask</dt><dd>${result.would_ask.filter((one) => one.for !== "fallback").map((one) => `${one.backend} (${one.model}, ${one.local ? "at home" : "cloud"})`).join(", then ")}</dd></div>
      <div><dt>Leaves the house</dt><dd>${result.leaves ? "yes" : "no"}</dd></div>
      <div><dt>Would cost</dt><dd>${result.cost_usd === null ? "not known" : `about ${usd(result.cost_usd)}`}</dd></div>
      ${result.note && html`<div><dt>Note</dt><dd>${result.note}</dd></div>`}
    </dl>
  </div>`;
}
