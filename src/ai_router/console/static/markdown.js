// Markdown as safe elements: no remote images, no HTML of the model's own, links that lead nowhere until clicked.
import { Marked } from "./vendor/marked.js";
import DOMPurify from "./vendor/purify.js";

const TAGS = [
  "a", "blockquote", "br", "button", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "input", "li",
  "ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
];
const ATTRIBUTES = ["align", "checked", "class", "data-copy", "disabled", "href", "start", "title", "type"];

const escaped = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    // What a model writes as HTML is shown as it was written.
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">image: ${escaped(text || href)}</a>`,
    code: ({ text, lang }) =>
      `<div class="code"><div class="code-head"><span>${escaped(lang?.split(/\s/)[0] || "code")}</span>` +
      `<button type="button" class="bare" data-copy>Copy</button></div><pre><code>${escaped(text)}</code></pre></div>`,
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  if (node.tagName === "INPUT") {
    // Ticks of task lists, and nothing else.
    node.setAttribute("type", "checkbox");
    node.setAttribute("disabled", "");
    node.setAttribute("aria-label", "task");
  }
  if (node.tagName === "PRE") node.setAttribute("tabindex", "0");
});

/** Show `text`, which is markdown from anybody, in `element`. */
export function renderInto(element, text) {
  const safe = DOMPurify.sanitize(marked.parse(text), {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  element.replaceChildren(safe);
}
