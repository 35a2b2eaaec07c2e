// Under each answer: where it went, who decided, how sure, how fast, what it cost; and, on request, why.
import { call } from "./api.js";
import { LABELS, deciderName, labelName, ms, ownRoutes, routeKind, routeName, sureness, usd } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";
import { useLoaded } from "./loaded.js";

export function Badge({ message, answer }) {
  const [open, setOpen] = useState(false);
  const over = message.status !== "streaming";
  const known = over ? message.details : answer?.decision;
  if (!known?.route) return html`<div class="badge-line"></div>`;
  const ttft = over ? known.ttft_ms : answer?.ttft;
  const id = `why-${message.id}`;
  return html`<div class="badge-line">
      <button
        type="button"
        class=${`badge ${routeKind(known.route)}`}
        aria-expanded=${open}
        aria-controls=${id}
        onClick=${() => setOpen(!open)}
      >
        <span class="dot" aria-hidden="true"></span>
        <b>${routeName(known.route)}</b>
        <span>${deciderName(known.decided_by)}${howSure(known)}</span>
        ${ttft !== undefined && ttft !== null && html`<span>first word ${ms(ttft)}</span>`}
        ${over && html`<span>${usd(known.cost_usd)}</span>`}
        <span class="more">${open ? "Less" : "Why?"}</span>
      </button>
    </div>
    ${open && html`<div class="why" id=${id}><${Why} message=${message} known=${known} over=${over} /></div>`}`;
}

function howSure({ confidence, decided_by: decidedBy }) {
  return decidedBy === "explicit" || decidedBy === "meta" ? "" : `, ${sureness(confidence)}`;
}

function Why({ message, known, over }) {
  return html`
    <dl class="facts">
      <div><dt>Reason</dt><dd>${known.reason || "none was given"}</dd></div>
      ${known.ask && html`<div><dt>Judged</dt><dd>${known.ask}</dd></div>`}
      <div><dt>Model</dt><dd>${known.model ?? "none answered"}</dd></div>
      ${over && html`<div><dt>Tokens</dt><dd>${tokens(known)}</dd></div>`}
      ${over && html`<div><dt>Cost</dt><dd>${cost(known)}</dd></div>`}
      ${known.warning && html`<div><dt>Note</dt><dd>${known.warning}</dd></div>`}
    </dl>
    ${over && message.session_id && html`<${Times} session=${message.session_id} />`}
    ${over && message.request_id && html`<${Feedback} request=${message.request_id} label=${known.label} />`}
  `;
}

function tokens({ input_tokens: input, output_tokens: output, tokens_estimated: estimated }) {
  if (input === null || input === undefined) return "not known";
  return `${input} in, ${output} out${estimated ? ", estimated" : ""}`;
}

function cost({ cost_usd: whole, known_cost_usd: known }) {
  if (whole !== null && whole !== undefined) return usd(whole);
  return known ? `${Number(known.toPrecision(2))} USD, and a part that is not known` : "not known";
}

function Times({ session }) {
  const box = useRef(null);
  const [shown, setShown] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    let wanted = true;
    Promise.all([call("GET", `api/sessions/${session}`), import("./waterfall.js")]).then(
      ([document, module]) => wanted && setShown({ document, Waterfall: module.Waterfall }),
      (error) => wanted && setProblem(error.message),
    );
    return () => (wanted = false);
  }, [session]);
  useEffect(() => {
    box.current?.closest(".why")?.scrollIntoView({ block: "nearest" });
  }, [shown]);
  if (problem) return html`<p class="muted">Its times cannot be shown: ${problem}.</p>`;
  if (!shown) return html`<div class="skeleton tall" aria-busy="true"></div>`;
  return html`<div ref=${box}>
    <${shown.Waterfall} session=${shown.document} />
    <p><a href=${`#/sessions/${session}`}>The whole session</a></p>
  </div>`;
}

/** "This should have been ...": an example that `ai-router learn --from-sessions` reads. */
export function Feedback({ request, label }) {
  const [state, setState] = useState(null);
  async function tell(verdict) {
    setState({ busy: true });
    try {
      const kept = await call("POST", "v1/feedback", { body: { request_id: request, verdict } });
      setState({ text: acknowledged(kept) });
    } catch (error) {
      setState({ text: error.message, failed: true });
    }
  }
  const { value: models } = useLoaded((signal) => call("GET", "v1/models", { signal }), []);
  const own = ownRoutes(models).map(({ id }) => [id.toUpperCase(), id]);
  const others = [...Object.entries(LABELS), ...own].filter(([name]) => name !== label);
  return html`<div class="feedback">
    <span id=${`should-${request}`}>This should have been</span>
    <div class="row" role="group" aria-labelledby=${`should-${request}`}>
      ${others.map(
        ([name, title]) => html`<button
          key=${name}
          type="button"
          class=${`chip ${routeKind({ MODERATE: "primary", COMPLEX: "xai", ENRICH: "enrich" }[name] ?? "none")}`}
          disabled=${state?.busy}
          onClick=${() => tell(`should_be: ${name}`)}
        >
          ${title}
        </button>`,
      )}
      <button type="button" class="chip" disabled=${state?.busy} onClick=${() => tell("good")}>It was right</button>
    </div>
    ${state?.text && html`<p role="status" class=${state.failed ? "problem" : "thanks"}>${state.text}</p>`}
  </div>`;
}

function acknowledged({ verdict, label }) {
  if (verdict === "should_be") {
    const command = LABELS[label] ? "ai-router learn --from-sessions" : "ai-router learn";
    return `Kept as an example: this is ${labelName(label)}. The next "${command}" learns from it.`;
  }
  return label ? `Kept as an example of ${labelName(label)}.` : "Kept.";
}
