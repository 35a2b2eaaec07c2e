// What a request's time went to: one lane for its way, another for the call that was begun on speculation.
import { ms, routeKind } from "./format.js";
import { html } from "./lib.js";

/** `session`: the document of GET /api/sessions/{id}. */
export function Waterfall({ session }) {
  const total = Math.max(1, session.timings.total_ms);
  const main = mainLane(session);
  const guess = speculationLane(session);
  return html`<figure class="waterfall">
    <figcaption>Where ${ms(total)} went</figcaption>
    <${Lane} bars=${main} total=${total} />
    ${guess && html`<p class="lane-title">Speculation: ${guess.story}</p><${Lane} bars=${guess.bars} total=${total} />`}
    <div class="scale" aria-hidden="true"><span>0</span><span>${ms(total / 2)}</span><span>${ms(total)}</span></div>
  </figure>`;
}

function Lane({ bars, total }) {
  return html`<ol class="lane">
    ${bars.map(
      ({ name, at, took, kind }) => html`<li key=${name + at}>
        <span class="bar-name">${name}</span>
        <span class="track" aria-hidden="true">
          <span
            class=${`bar ${kind}`}
            style=${{ left: `${(100 * at) / total}%`, width: `${Math.max(0.6, (100 * took) / total)}%` }}
          ></span>
        </span>
        <span class="bar-time">${ms(took)}</span>
      </li>`,
    )}
  </ol>`;
}

const STEPS = {
  classification: (step) => ["Classifier decides", step, "decide"],
  enrichment: (step) => ["Web search", step, "search"],
  queue: (step) => ["Waits in the queue", step, "wait"],
};

function mainLane(session) {
  const { parts } = session.timings;
  const bars = [{ name: "Router reads and decides", at: 0, took: (parts.receive ?? 0) + (parts.decide ?? 0), kind: "decide" }];
  for (const step of session.steps) {
    const made = STEPS[step.kind]?.(step);
    if (made) bars.push({ name: made[0], at: step.started_ms, took: step.duration_ms, kind: made[2] });
    if (step.kind === "provider_call" && !isLosingGuess(step, session)) bars.push(...callBars(step, session));
  }
  return bars.sort((a, b) => a.at - b.at);
}

/** A call of a backend as up to two bars: until its first word, and the rest. */
function callBars(step, session) {
  const kind = routeKind(session.route === "enrich" && step.backend === "primary" ? "primary" : step.backend);
  const who = step.model || step.backend;
  if (step.error) return [{ name: `${who}: ${step.error}`, at: step.started_ms, took: step.duration_ms, kind: "failed" }];
  if (step.ttft_ms === null || step.ttft_ms === undefined) {
    return [{ name: `${who} answers`, at: step.started_ms, took: step.duration_ms, kind }];
  }
  return [
    { name: `${who}, first word`, at: step.started_ms, took: step.ttft_ms, kind: "wait" },
    { name: `${who} answers`, at: step.started_ms + step.ttft_ms, took: step.duration_ms - step.ttft_ms, kind },
  ];
}

function isLosingGuess(step, session) {
  return step.speculative && session.speculation === "cancelled";
}

/** The speculative call, and what came of it; null: there was none. */
function speculationLane(session) {
  const step = session.steps.find(({ kind }) => kind === "speculation");
  if (!step) return null;
  const began = step.started_ms;
  const call = session.steps.find(({ kind, speculative }) => kind === "provider_call" && speculative);
  if (step.result === "hit") {
    const decided = Math.max(began, step.decided_ms ?? began + step.duration_ms);
    return {
      bars: [{ name: "Local model, confirmed", at: began, took: decided - began, kind: "home" }],
      story: `begun at ${ms(began)}, confirmed at ${ms(decided)}, ${savedText(decided - began, call)}.`,
    };
  }
  const failed = step.why === "it failed";
  const ended = failed && call ? call.started_ms + call.duration_ms : (step.decided_ms ?? began + step.duration_ms);
  return {
    bars: [{ name: `Local model, ${failed ? "failed" : "cut"}`, at: began, took: Math.max(0, ended - began), kind: "cut" }],
    story: `begun at ${ms(began)}, ${failed ? "failed" : "cut"} at ${ms(ended)}, ${WASTED[step.why] ?? "wasted"}.`,
  };
}

const WASTED = {
  "it failed": "wasted: a backend was asked anew",
  "the web is searched first": "wasted: the web had to be searched first",
  "decided otherwise": "wasted: the answer came from elsewhere",
};

/** What the speculation spared the reader: without it the model would have been asked after the decision. So it is the
 * time until then, or all that the model took for its first word if that is less. */
function savedText(aheadMs, call) {
  if (call?.ttft_ms === null || call?.ttft_ms === undefined) return "how much it saved is not known";
  return `saved ${ms(Math.min(aheadMs, call.ttft_ms))}`;
}
