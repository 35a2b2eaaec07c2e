// One message: what was said, how it went, and what can be done with it.
import { Badge } from "./badge.js";
import { answers } from "./conversation.js";
import { ms } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";

export function Message({ message, isLast, retry, edit }) {
  if (message.role === "user") return html`<${Asked} message=${message} edit=${edit} />`;
  if (message.role === "system") return html`<p class="muted small said">Instructions: ${message.content}</p>`;
  return html`<${Answer} message=${message} isLast=${isLast} retry=${retry} />`;
}

function Asked({ message, edit }) {
  const [draft, setDraft] = useState(null);
  const field = useRef(null);
  const button = useRef(null);
  const editing = draft !== null;
  useEffect(() => {
    if (editing) field.current.focus();
    return () => editing && setTimeout(() => button.current?.focus());
  }, [editing]);
  if (editing) {
    const send = (event) => {
      event.preventDefault();
      setDraft(null);
      if (draft.trim()) edit(draft);
    };
    return html`<form class="asked editing" onSubmit=${send}>
      <textarea
        aria-label="Your message, changed"
        rows="3"
        ref=${field}
        value=${draft}
        onKeyDown=${(event) => event.key === "Escape" && setDraft(null)}
        onInput=${(event) => setDraft(event.target.value)}
      ></textarea>
      <div class="row end">
        <button type="button" class="quiet" onClick=${() => setDraft(null)}>Cancel</button>
        <button type="submit" class="primary">Send anew</button>
      </div>
    </form>`;
  }
  return html`<article class="asked" aria-label="You">
    <div class="said">${message.content}</div>
    <div class="row end tools">
      ${!message.id.startsWith("new-") &&
      html`<button type="button" class="bare" ref=${button} onClick=${() => setDraft(message.content)}>Edit</button>`}
    </div>
  </article>`;
}

function Answer({ message, isLast, retry }) {
  const coming = message.status === "streaming" ? answers.value[message.id] : null;
  const content = coming ? coming.content : message.content;
  const reasoning = coming ? coming.reasoning : message.reasoning;
  const over = message.status !== "streaming";
  return html`<article class="answer" aria-label="Answer" aria-busy=${!over} data-status=${message.status}>
    ${reasoning && html`<${Reasoning} text=${reasoning} over=${over || Boolean(content)} />`}
    ${!content && !over && html`<${Waiting} answer=${coming} />`}
    ${content && html`<${Markdown} text=${content} over=${over} />`}
    <${Ending} message=${message} />
    <${Citations} found=${message.details?.citations} />
    <${Badge} message=${message} answer=${coming} />
    ${over &&
    html`<div class="row tools">
      ${isLast && retry && html`<button type="button" class="bare" onClick=${retry}>Retry</button>`}
      ${content && html`<${Copy} text=${content} label="Copy" />`}
    </div>`}
  </article>`;
}

const ENDINGS = {
  cancelled: "Stopped. What had come is kept.",
  interrupted: "The router was stopped while it answered. What had come is kept.",
};

function Ending({ message }) {
  if (message.status === "error") {
    return html`<p class="problem" role="alert">${message.error?.message ?? "The answer failed."}</p>`;
  }
  const text = ENDINGS[message.status];
  return text ? html`<p class="ending">${text}</p>` : null;
}

/** Before the first word: what is being done. */
function Waiting({ answer }) {
  const notice = answer?.notice;
  const [, again] = useState(0);
  const counts = notice?.seconds !== undefined;
  useEffect(() => {
    if (!counts) return undefined;
    const timer = setInterval(() => again((n) => n + 1), 500);
    return () => clearInterval(timer);
  }, [counts]);
  return html`<div class="waiting">
    <p class="notice"><span role="status">${doing(answer)}</span>${counts && countdown(notice)}</p>
    <div class="skeleton"></div>
    <div class="skeleton short"></div>
  </div>`;
}

function doing(answer) {
  const notice = answer?.notice;
  if (!notice) return answer?.decision ? "Waiting for the first word" : "Deciding";
  if (notice.seconds === undefined) return notice.text.charAt(0).toUpperCase() + notice.text.slice(1);
  return `Hold on: ${notice.waiting_for.join(" or ")} is busy. You are number ${notice.position} in the queue`;
}

/** Not a part of the status, since that would be read out anew each second. */
function countdown(notice) {
  const left = Math.max(0, Math.round(notice.seconds - (performance.now() - notice.at) / 1000));
  return `, about ${left} s to go.`;
}

function Reasoning({ text, over }) {
  const began = useRef(performance.now());
  const [took, setTook] = useState(null);
  useEffect(() => {
    if (over && took === null) setTook(performance.now() - began.current);
  }, [over]);
  const title = over ? (took > 300 ? `Thought for ${ms(took)}` : "Its thoughts") : "Thinking";
  return html`<details class="reasoning">
    <summary>${title}</summary>
    <div class="said">${text}</div>
  </details>`;
}

function Citations({ found }) {
  const links = (found ?? []).map((one) => (typeof one === "string" ? { url: one } : one)).filter((one) => safe(one.url));
  if (links.length === 0) return null;
  return html`<nav class="citations" aria-label="Sources">
    <h3>Sources</h3>
    <ol>
      ${links.map(
        ({ url, title }) => html`<li key=${url}>
          <a href=${url} target="_blank" rel="noopener noreferrer nofollow">${title || new URL(url).hostname}</a>
          ${title && html` <span class="muted">${new URL(url).hostname}</span>`}
        </li>`,
      )}
    </ol>
  </nav>`;
}

function safe(url) {
  try {
    return ["http:", "https:"].includes(new URL(url).protocol);
  } catch {
    return false;
  }
}

let markdown = null;
/** Loaded with the first answer, not with the page. */
const markdownLoads = () => (markdown ? Promise.resolve(markdown) : import("./markdown.js").then((found) => (markdown = found)));

/** The text as markdown. While it grows it is drawn anew at most every 60 ms, or as slowly as the drawing takes. */
function Markdown({ text, over }) {
  const box = useRef(null);
  const state = useRef({ timer: 0, drawn: null, cost: 0, text: "" });
  useEffect(() => {
    const now = state.current;
    now.text = text;
    if (!markdown && box.current) box.current.textContent = text;
    const draw = async () => {
      const { renderInto } = await markdownLoads();
      now.timer = 0;
      if (!box.current || now.drawn === now.text) return;
      const began = performance.now();
      renderInto(box.current, now.text);
      now.drawn = now.text;
      now.cost = performance.now() - began;
    };
    if (over) {
      clearTimeout(now.timer);
      draw();
    } else if (!now.timer) {
      now.timer = setTimeout(draw, Math.max(60, now.cost * 8));
    }
  }, [text, over]);
  useEffect(() => () => clearTimeout(state.current.timer), []);
  return html`<div class="markdown" ref=${box} onClick=${copyCode}></div>`;
}

function copyCode(event) {
  const button = event.target.closest("button[data-copy]");
  if (button) copy(button.closest(".code").querySelector("code").textContent, button);
}

function Copy({ text, label }) {
  return html`<button type="button" class="bare" onClick=${(event) => copy(text, event.currentTarget)}>${label}</button>`;
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Could not copy";
  }
  setTimeout(() => (button.textContent = before), 1500);
}

