// One connection for all that changes: requests under way, backends, the day so far.
import { events, key, keyWanted } from "./api.js";
import { effect, signal } from "./lib.js";

export const requests = signal([]);
export const backends = signal([]);
/** The sums of the day; null: not known yet; {error}: cannot be had. */
export const today = signal(null);
/** Whether the connection stands: true, false, or null before the first try. */
export const connected = signal(null);

/** The router says something every fifteen seconds. */
const SILENT_MS = 40_000;
const PAUSES_MS = [500, 1000, 2000, 4000, 8000, 15_000];

function take({ name, data }) {
  connected.value = true;
  if (name === "requests") requests.value = data.requests ?? [];
  else if (name === "backends") backends.value = data.backends ?? [];
  else if (name === "today") today.value = data;
}

async function follow(abort) {
  for (let failures = 0; !abort.aborted; failures += 1) {
    try {
      for await (const event of events("GET", "api/live", { signal: abort, silentMs: SILENT_MS })) {
        failures = 0;
        take(event);
      }
    } catch (problem) {
      if (abort.aborted) return;
      // The page asks for another key, and then begins anew.
      if (problem.status === 401 || problem.status === 403) {
        connected.value = false;
        return;
      }
    }
    connected.value = false;
    const pause = PAUSES_MS[Math.min(failures, PAUSES_MS.length - 1)];
    await new Promise((wake) => setTimeout(wake, pause));
  }
}

/** Keep the connection, with whatever key there is, while the tab is seen: a browser has only six for all tabs. */
export function followLive() {
  const seen = signal(!document.hidden);
  document.addEventListener("visibilitychange", () => (seen.value = !document.hidden));
  let abort = new AbortController();
  let shownTo = key.value;
  effect(() => {
    key.value; // another key sees other things
    if (keyWanted.value !== null) return;
    abort.abort();
    if (key.value !== shownTo) {
      shownTo = key.value;
      requests.value = [];
      today.value = null;
    }
    if (!seen.value) return;
    abort = new AbortController();
    follow(abort.signal);
  });
}
