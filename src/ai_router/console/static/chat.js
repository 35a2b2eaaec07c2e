// Chat: the threads on one side, the conversation, and what to say next.
import { call } from "./api.js";
import { listProblem, loadOlder, loadThreads, open, refresh, remove, say, shown, stop, threads, underWay } from "./conversation.js";
import { ownRoutes } from "./format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { useLoaded } from "./loaded.js";
import { Message } from "./message.js";

const SUGGESTIONS = [
  "What does an umbrella insurance cover?",
  "Prove that the square root of 2 is irrational, and say which step fails for 4.",
  "Which Python version came out last?",
];
const ROUTES = [
  ["auto", "Let the router decide"],
  ["primary", "Local model"],
  ["xai", "Cloud"],
  ["enrich", "Search the web first"],
];
const MODEL = "ai-router-model";
const SETTLES_MS = 1000;

export function Chat({ id }) {
  const [model, setModel] = useState(sessionStorage.getItem(MODEL) ?? "auto");
  const [listOpen, setListOpen] = useState(false);
  useEffect(() => {
    open(id);
    setListOpen(false);
  }, [id]);
  useEffect(() => {
    loadThreads();
    const look = () => {
      if (document.visibilityState === "visible" && !underWay()) refresh();
    };
    document.addEventListener("visibilitychange", look);
    return () => document.removeEventListener("visibilitychange", look);
  }, []);
  const choose = (name) => {
    sessionStorage.setItem(MODEL, name);
    setModel(name);
  };
  return html`<div class="chat">
    <${Threads} id=${id} open=${listOpen} close=${() => setListOpen(false)} />
    <section class="conversation" aria-label="Conversation">
      <div class="only-small row">
        <button type="button" class="quiet" aria-expanded=${listOpen} onClick=${() => setListOpen(!listOpen)}>
          Conversations
        </button>
        <a class="button quiet" href="#/chat">New</a>
      </div>
      <${Messages} model=${model} />
      <${Composer} model=${model} choose=${choose} />
    </section>
  </div>`;
}

function Threads({ id, open: isOpen, close }) {
  const list = threads.value;
  async function forget(thread) {
    if (!confirm(`Delete "${thread.title || "this conversation"}" with all its messages?`)) return undefined;
    try {
      await remove(thread.id);
    } catch (problem) {
      return alert(problem.message);
    }
    if (thread.id === id) location.hash = "#/chat";
    return undefined;
  }
  return html`<aside class=${`threads ${isOpen ? "open" : ""}`} aria-label="Conversations">
    <button type="button" class="only-small quiet" onClick=${close}>Close</button>
    <a class="button primary" href="#/chat" onClick=${close}>New conversation</a>
    ${listProblem.value && html`<p class="problem small" role="alert">They cannot be listed: ${listProblem.value}.</p>`}
    ${list === null
      ? !listProblem.value && html`<div class="skeleton"></div><div class="skeleton"></div>`
      : html`<ul>
          ${list.map(
            (thread) => html`<li key=${thread.id}>
              <a href=${`#/chat/${thread.id}`} onClick=${close} aria-current=${thread.id === id ? "page" : undefined}>
                ${thread.title || "Without a title"}
              </a>
              <button type="button" class="bare" aria-label=${`Delete ${thread.title}`} onClick=${() => forget(thread)}>
                ×
              </button>
            </li>`,
          )}
        </ul>`}
  </aside>`;
}

function Messages({ model }) {
  const { messages, older, problem, id } = shown.value;
  const box = useRef(null);
  const follows = useRef(true);
  const last = messages?.at(-1);
  useLayoutEffect(() => {
    follows.current = true;
  }, [id, messages?.length]);
  useEffect(() => {
    // Stay at the end while the answer grows, unless the reader has scrolled away from it.
    const element = box.current;
    let answering = 0;
    const stay = () => {
      // What stands below an answer comes when it has ended.
      if (underWay()) answering = performance.now();
      const fresh = performance.now() - answering < SETTLES_MS;
      if (follows.current && fresh) element.scrollTop = element.scrollHeight;
    };
    element.scrollTop = element.scrollHeight;
    const observer = new ResizeObserver(stay);
    observer.observe(element.querySelector(".column"));
    return () => observer.disconnect();
  }, [id, messages === null]);
  const lastTop = useRef(0);
  const scrolled = () => {
    const { scrollHeight, scrollTop, clientHeight } = box.current;
    if (scrollHeight - scrollTop - clientHeight < 40) follows.current = true;
    else if (scrollTop < lastTop.current) follows.current = false;
    lastTop.current = scrollTop;
  };
  /** How to ask again for what a message answers; null: it answers nothing of the user's. */
  const retryOf = (message) => {
    const asked = messages[messages.indexOf(message) - 1];
    if (asked?.role !== "user") return null;
    return () => {
      say(asked.content, model, asked.id);
      document.getElementById("say").focus(); // the button is gone
    };
  };
  return html`<div class="messages" ref=${box} onScroll=${scrolled} tabindex="0" aria-label="Messages">
    <p class="hidden" role="status">${told(last)}</p>
    <div class="column">
      ${problem && html`<p class="problem" role="alert">${problem.message}</p>`}
      ${messages === null && html`<div class="skeleton tall"></div>`}
      ${messages?.length === 0 && !problem && html`<${Welcome} model=${model} />`}
      ${older !== null && html`<button type="button" class="quiet" onClick=${loadOlder}>Older messages</button>`}
      ${messages?.map(
        (message) => html`<${Message}
          key=${message.id}
          message=${message}
          isLast=${message === last}
          retry=${retryOf(message)}
          edit=${(content) => say(content, model, message.id)}
        />`,
      )}
    </div>
  </div>`;
}

const TOLD = { complete: "The answer is complete.", cancelled: "The answer was stopped.", streaming: "Answering." };

/** For those who do not see it. */
function told(last) {
  return last?.role === "assistant" ? (TOLD[last.status] ?? "") : "";
}

function Welcome({ model }) {
  return html`<div class="welcome">
    <h1>Ask something</h1>
    <p>
      The router decides whether your own model answers, the cloud, or a web search comes first. Under each answer you
      see what it decided, why, and what that cost.
    </p>
    <ul>
      ${SUGGESTIONS.map(
        (text) => html`<li key=${text}>
          <button type="button" class="suggestion" onClick=${() => say(text, model)}>${text}</button>
        </li>`,
      )}
    </ul>
  </div>`;
}

function Composer({ model, choose }) {
  const [text, setText] = useState("");
  const field = useRef(null);
  const answering = underWay();
  useLayoutEffect(() => {
    field.current.style.height = "auto";
    field.current.style.height = `${Math.min(field.current.scrollHeight + 2, 260)}px`;
  }, [text]);

  function send(event) {
    event?.preventDefault();
    if (!text.trim() || answering) return;
    say(text, model);
    setText("");
    field.current.focus();
  }
  function keyed(event) {
    // A phone's keyboard has no Shift+Enter.
    const breaks = event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches;
    if (event.key === "Enter" && !breaks) send(event);
  }
  return html`<form class="composer" onSubmit=${send}>
    <label class="hidden" for="say">Your message</label>
    <textarea
      id="say"
      ref=${field}
      rows="1"
      placeholder="Ask something"
      value=${text}
      onInput=${(event) => setText(event.target.value)}
      onKeyDown=${keyed}
    ></textarea>
    <div class="row">
      <${Picker} model=${model} choose=${choose} />
      <span class="hint">Enter sends, Shift+Enter breaks the line</span>
      ${answering
        ? html`<button type="button" class="stop" onClick=${() => stop(answering)}>Stop</button>`
        : html`<button type="submit" class="primary" disabled=${!text.trim()}>Send</button>`}
    </div>
  </form>`;
}

function Picker({ model, choose }) {
  const { value } = useLoaded((signal) => call("GET", "v1/models", { signal }), []);
  const offered = value?.data.map((one) => one.id) ?? [];
  const own = ownRoutes(value).map(({ id, description }) => [id, `${id}: ${description}`]);
  const known = [...ROUTES, ...own];
  const routes = known.filter(([name]) => name === "auto" || name === model || offered.includes(name));
  const others = offered.filter((name) => !known.some(([route]) => route === name));
  if (model.includes("/") && !others.includes(model)) others.unshift(model);
  return html`<label class="picker">
    <span class="hidden">Who answers</span>
    <select value=${model} onChange=${(event) => choose(event.target.value)}>
      ${routes.map(([name, title]) => html`<option key=${name} value=${name}>${title}</option>`)}
      ${others.length > 0 &&
      html`<optgroup label="A model by name">
        ${others.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
      </optgroup>`}
    </select>
  </label>`;
}
