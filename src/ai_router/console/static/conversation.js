// Threads and their messages: what is kept by the router, and the answer that is just coming.
import { ApiError, call, events, key, organization } from "./api.js";
import { batch, effect, signal } from "./lib.js";

/** The latest threads; null: not loaded yet. */
export const threads = signal(null);
/** Why the threads cannot be listed; null: they can. */
export const listProblem = signal(null);
/** The thread that is shown: {id, messages, older, problem}. `messages` null: not loaded yet. `older`: where the page of
 * messages before them begins; null: there are none. */
export const shown = signal({ id: null, messages: [], older: null, problem: null });
/** The answers under way, by message id: {content, reasoning, decision, notice, lastEvent, beganAt}. */
export const answers = signal({});

const PAGE = 100;
const OTHER_PAGES = /^#\/(?!chat)\w/;
const RESUME_PAUSES_MS = [200, 500, 1000, 2000, 4000, 8000];
const OTHER_PROCESS_MS = 3000;
let counter = 0;
/** Answers to be stopped as soon as the router has told their ids. */
const unwanted = new Set();

// Another key, or another organization, has other threads.
effect(() => {
  key.value;
  organization.value;
  threads.value = null;
  shown.value = { id: null, messages: [], older: null, problem: null };
  answers.value = {};
});

export async function loadThreads() {
  try {
    threads.value = (await call("GET", "api/threads?limit=100")).data;
    listProblem.value = null;
  } catch (problem) {
    listProblem.value = problem.message;
  }
}

/** Show a thread, and go on with its answer if one is under way. Without an id: a new one. */
export async function open(id) {
  if (id === null) {
    shown.value = { id: null, messages: [], older: null, problem: null };
    return;
  }
  if (shown.value.id === id && shown.value.messages !== null) return;
  shown.value = { id, messages: null, older: null, problem: null };
  await refresh(id);
}

/** Load the messages of the thread that is shown. */
export async function refresh(id = shown.value.id) {
  if (id === null || shown.value.id !== id) return;
  try {
    const { data, next } = await call("GET", `api/threads/${id}/messages?limit=${PAGE}`);
    if (shown.value.id !== id) return;
    const known = shown.value.messages ?? [];
    const first = known.findIndex((message) => message.id === data[0]?.id);
    // What was loaded before these stays, and so does what could not be sent.
    const earlier = first > 0 ? known.slice(0, first) : [];
    const unsent = known.filter((message) => message.id.startsWith("new-"));
    const older = earlier.length > 0 ? shown.value.older : next;
    shown.value = { id, messages: [...earlier, ...data, ...unsent], older, problem: null };
    for (const message of data.filter((one) => one.status === "streaming" && !answers.value[one.id])) {
      const answer = { ...emptyAnswer(), beganAt: null };
      follow(id, message.id, answer, resumed(id, message.id, 0)).catch(() => {
        // Another process may be answering it: look again.
        dropAnswer(message.id);
        setTimeout(() => refresh(id), OTHER_PROCESS_MS);
      });
    }
  } catch (problem) {
    if (shown.value.id === id) shown.value = { ...shown.value, messages: shown.value.messages ?? [], problem };
  }
}

/** Load the messages before those that are shown. */
export async function loadOlder() {
  const { id, older } = shown.value;
  const { data, next } = await call("GET", `api/threads/${id}/messages?limit=${PAGE}&before=${older}`);
  if (shown.value.id === id) shown.value = { ...shown.value, messages: [...data, ...shown.value.messages], older: next };
}

/** Whether an answer of the shown thread is under way. */
export function underWay() {
  return (shown.value.messages ?? []).find((message) => message.status === "streaming") ?? null;
}

function emptyAnswer() {
  return { content: "", reasoning: "", decision: null, notice: null, lastEvent: 0, beganAt: performance.now() };
}

/** Say something. `replaces`: the id of an earlier message that gives way, with all behind it. */
export async function say(content, model, replaces = null) {
  const asked = { id: `new-${(counter += 1)}`, role: "user", content, status: "complete" };
  const answer = { id: `new-${(counter += 1)}`, role: "assistant", content: "", status: "streaming", details: {} };
  const before = shown.value.messages ?? [];
  const at = before.findIndex((message) => message.id === replaces);
  shown.value = {
    ...shown.value,
    problem: null,
    messages: [...(at < 0 ? before : before.slice(0, at)), asked, answer],
  };
  setAnswer(answer.id, emptyAnswer());
  let { id } = shown.value;
  try {
    if (id === null) {
      ({ id } = await call("POST", "api/threads"));
      // Somebody may have gone to another thread meanwhile.
      if (shown.value.messages?.includes(answer)) {
        shown.value = { ...shown.value, id };
        if (!OTHER_PAGES.test(location.hash)) location.replace(`#/chat/${id}`);
      }
    }
    const kept = replaces && !replaces.startsWith("new-");
    const body = { content, model, ...(kept ? { replaces } : {}) };
    await follow(id, answer.id, answers.value[answer.id], events("POST", `api/threads/${id}/messages/stream`, { body }), asked);
  } catch (problem) {
    if (answers.value[answer.id]) {
      // It was never taken: it can be tried again.
      dropAnswer(answer.id);
      changeMessage(id, answer.id, { status: "error", error: { message: problem.message } });
    } else {
      // It may have ended without us, or another process may go on with it.
      recover(id);
    }
  }
  loadThreads();
}

/** Drop what is known of a thread's answers under way, and look again until the router knows how they ended. */
function recover(thread) {
  for (const message of shown.value.id === thread ? (shown.value.messages ?? []) : []) {
    if (message.status === "streaming") dropAnswer(message.id);
  }
  refresh(thread).then(() => {
    if (shown.value.id === thread && (shown.value.problem !== null || underWay())) {
      setTimeout(() => underWay() && !answers.value[underWay().id] && recover(thread), OTHER_PROCESS_MS);
    }
  });
}

/** Stop an answer. It keeps what has come. One whose id is not known yet is stopped as soon as it is. */
export async function stop(message) {
  if (message.id.startsWith("new-")) {
    unwanted.add(message.id);
    return;
  }
  await call("POST", `api/threads/${shown.value.id}/messages/${message.id}/cancel`).catch(() => {});
}

export async function remove(id) {
  await call("DELETE", `api/threads/${id}`).catch((problem) => {
    if (problem.status !== 404) throw problem; // another tab has deleted it
  });
  threads.value = (threads.value ?? []).filter((thread) => thread.id !== id);
}

function resumed(thread, message, after) {
  return events("GET", `api/threads/${thread}/messages/${message}/stream`, {
    headers: { "last-event-id": String(after) },
  });
}

/** Read an answer's events to their end; if the connection breaks off, go on where it was. */
async function follow(thread, message, answer, stream, asked = null) {
  setAnswer(message, answer);
  for (let failures = 0; ; ) {
    try {
      for await (const event of stream) {
        failures = 0;
        if (event.id) answer.lastEvent = Number(event.id);
        if (event.name === "message" && asked !== null && event.data.message_id !== message) {
          message = rename(thread, message, asked, event.data);
        }
        if (event.name === "done" || event.name === "error") {
          end(thread, message, event.data);
          return;
        }
        answer = taken(answer, event);
        setAnswer(message, answer);
      }
    } catch (problem) {
      if (!(problem instanceof ApiError) || problem.status !== 0 || String(message).startsWith("new-")) throw problem;
    }
    if (failures >= RESUME_PAUSES_MS.length) throw new ApiError("the connection to the router broke off", 0);
    await new Promise((wake) => setTimeout(wake, RESUME_PAUSES_MS[failures]));
    failures += 1;
    stream = resumed(thread, message, answer.lastEvent);
  }
}

/** An answer with one more event. Values do not change, so that only what differs is drawn anew. */
function taken(answer, { name, data }) {
  if (name === "decision") return { ...answer, decision: data };
  if (name === "notice") return { ...answer, notice: { ...data, at: performance.now() } };
  if (name === "snapshot") return { ...answer, content: data.content, reasoning: data.reasoning };
  if (name !== "delta") return answer;
  const ttft = answer.ttft ?? (answer.beganAt === null ? null : performance.now() - answer.beganAt);
  return {
    ...answer,
    ttft,
    notice: null,
    content: answer.content + (data.content ?? ""),
    reasoning: answer.reasoning + (data.reasoning ?? ""),
  };
}

/** The router has given both messages their ids. */
function rename(thread, oldId, asked, ids) {
  const answer = answers.value[oldId];
  batch(() => {
    dropAnswer(oldId);
    setAnswer(ids.message_id, answer);
    changeMessage(thread, asked.id, { id: ids.user_message_id });
    changeMessage(thread, oldId, { id: ids.message_id, request_id: ids.request_id, session_id: ids.session_id });
  });
  if (unwanted.delete(oldId)) {
    call("POST", `api/threads/${thread}/messages/${ids.message_id}/cancel`).catch(() => {});
  }
  return ids.message_id;
}

function end(thread, message, data) {
  const { content, reasoning, status, details, error } = data;
  batch(() => {
    changeMessage(thread, message, { content, reasoning, status, details, error });
    dropAnswer(message);
  });
}

function changeMessage(thread, id, changes) {
  const { value } = shown;
  if (value.id !== thread || value.messages === null) return;
  shown.value = {
    ...value,
    messages: value.messages.map((message) => (message.id === id ? { ...message, ...changes } : message)),
  };
}

function setAnswer(id, answer) {
  answers.value = { ...answers.value, [id]: answer };
}

function dropAnswer(id) {
  const { [id]: _, ...others } = answers.value;
  answers.value = others;
}
