// How the page asks the router: with the key of this tab, and a header that no form can send.
import { signal } from "./lib.js";

const KEY = "ai-router-key";
const ORGANIZATION = "ai-router-organization";

export const key = signal(sessionStorage.getItem(KEY) ?? "");
export const organization = signal(sessionStorage.getItem(ORGANIZATION) ?? "");
/** Why a key is asked for; null: it is not. */
export const keyWanted = signal(null);

/** Keep a key and an organization until the tab is closed. */
export function keepKey(newKey, newOrganization) {
  sessionStorage.setItem(KEY, newKey);
  sessionStorage.setItem(ORGANIZATION, newOrganization);
  key.value = newKey;
  organization.value = newOrganization;
  keyWanted.value = null;
}

export class ApiError extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function ask(method, path, { body, signal: abort, headers = {} } = {}) {
  const sent = { "x-requested-with": "ai-router console", ...headers };
  if (key.value) sent.authorization = `Bearer ${key.value}`;
  if (organization.value) sent["x-org-id"] = organization.value;
  if (body !== undefined) sent["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: abort,
      cache: "no-store",
    });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError("the router cannot be reached", 0, "unreachable");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const error = told.error ?? {};
  if (response.status === 401) {
    keyWanted.value = key.value ? "This router does not know that key." : "This router asks for a key.";
  } else if (response.status === 403 && error.code === "forbidden") {
    // Whoever has only an admin key lets everybody chat, and shows nobody else what was said.
    keyWanted.value = "This router shows what it keeps to whoever has the admin key.";
  }
  throw new ApiError(error.message ?? `the router answered ${response.status}`, response.status, error.code);
}

/** The JSON that the router answers. Throws ApiError. */
export async function call(method, path, options) {
  return (await ask(method, path, options)).json();
}

/** The server-sent events of an answer, as {id, name, data}. Ends with the answer, or when nothing has come for
 * `silentMs`; throws ApiError. */
export async function* events(method, path, options = {}) {
  const response = await ask(method, path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  let silence = 0;
  try {
    for (;;) {
      if (options.silentMs) silence = setTimeout(() => reader.cancel().catch(() => {}), options.silentMs);
      const { value, done } = await reader.read();
      clearTimeout(silence);
      if (done) return;
      const blocks = (pending + value).split("\n\n");
      pending = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event) yield event;
      }
    }
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError("the connection to the router broke off", 0, "unreachable");
  } finally {
    clearTimeout(silence);
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const event = { id: null, name: "message", data: null };
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) event.id = line.slice(4);
    else if (line.startsWith("event: ")) event.name = line.slice(7);
    else if (line.startsWith("data: ")) event.data = JSON.parse(line.slice(6));
  }
  return event.data === null ? null : event;
}
