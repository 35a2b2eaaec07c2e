// Numbers and moments, as people read them.

export function ms(value) {
  if (value === null || value === undefined) return "unknown";
  if (value < 1000) return `${Math.round(value)}\u00a0ms`;
  if (value < 60_000) return `${(value / 1000).toFixed(value < 10_000 ? 1 : 0)}\u00a0s`;
  return `${Math.floor(value / 60_000)} min\u00a0${Math.round((value % 60_000) / 1000)}\u00a0s`;
}

export function usd(value) {
  if (value === null || value === undefined) return "cost unknown";
  if (value === 0) return "0\u00a0USD";
  if (value < 0.0001) return "<\u00a00.0001\u00a0USD";
  return `${value < 0.01 ? value.toFixed(4) : value < 1 ? value.toFixed(3) : value.toFixed(2)}\u00a0USD`;
}

export function percent(share, digits = 0) {
  if (share === null || share === undefined) return "unknown";
  const most = share < 1 ? 100 - 10 ** -digits : 100; // not all is never called all
  return `${Math.min(most, share * 100).toFixed(digits)}\u00a0%`;
}

/** A confidence. What is not certain is never called so. */
export function sureness(confidence) {
  if (confidence === null || confidence === undefined) return "not known how sure";
  return `${confidence < 1 ? Math.min(99, Math.round(confidence * 100)) : 100}\u00a0% sure`;
}

export function bytes(count) {
  if (count === null || count === undefined) return "unknown";
  if (count < 1000) return `${count}\u00a0B`;
  if (count < 1_000_000) return `${(count / 1000).toFixed(1)}\u00a0kB`;
  return `${(count / 1_000_000).toFixed(1)}\u00a0MB`;
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export function moment(value) {
  const date = typeof value === "number" ? new Date(value * 1000) : new Date(value);
  const today = new Date().toDateString() === date.toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return today ? time : `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

const ROUTES = {
  primary: ["home", "local model"],
  xai: ["cloud", "cloud"],
  enrich: ["search", "web search, then local"],
  meta: ["own", "chat UI's own job"],
  none: ["own", "not decided"],
};

/** What kind of route it is (home, cloud, search, own), and its name for people. */
export function routeKind(route) {
  return ROUTES[route]?.[0] ?? "cloud";
}

export function routeName(route) {
  return ROUTES[route]?.[1] ?? route;
}

const DECIDERS = {
  fast: "decided in-process",
  cache: "decided as before",
  classifier: "classifier decided",
  conversation: "stayed with the conversation",
  explicit: "chosen by name",
  meta: "recognised",
  default: "nobody was sure",
  policy: "policy",
};

export function deciderName(decidedBy) {
  return DECIDERS[decidedBy] ?? decidedBy ?? "not decided";
}

export const LABELS = { MODERATE: "local", COMPLEX: "cloud", ENRICH: "searched" };

/** The name of a label for people. That of a route of the owner's own is the route's. */
export function labelName(label) {
  return LABELS[label] ?? label.toLowerCase();
}

/** The routes of the owner's own, among the models of /v1/models; only they say what they are for. */
export function ownRoutes(models) {
  return models?.data.filter((one) => one.description) ?? [];
}
