// Help for pages: elements, rows that keep their place, numbers for people. Text goes in as text, never as HTML.

export const byId = (id) => document.getElementById(id);

/** An element with attributes (null: none) and children, which are elements or text. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A name from outside: isolated, so that its writing direction does not turn the text around it. */
export const name = (text) => el("bdi", { class: "name" }, text);

export function button(text, label, act, kind = "") {
  const made = el("button", { type: "button", class: kind, "aria-label": label }, text);
  made.addEventListener("click", act);
  return made;
}

const GOOD = ["PUBLISHING", "PLAYING", "PROCESSED_REMOTE", "ESTABLISHED", "LIVE", "finished"];
const BAD = ["FAILED", "broken"];
const WAITING = ["PENDING", "NEW", "PROCESSED_LOCAL", "RECONNECTING", "PROCESSING", "PAUSED", "writing", "WAITING"];

/** A status word with a mark beside its colour. */
export function badge(status) {
  const kind = GOOD.includes(status) ? "good" : BAD.includes(status) ? "bad" : WAITING.includes(status) ? "waiting" : "";
  return el("span", { class: `badge ${kind}` }, String(status).replaceAll("_", " "));
}

/** Says a status in a live region. */
export function say(region, status, info = "") {
  region.replaceChildren(...(status ? [badge(status)] : []), ...(info ? [el("span", { class: "info" }, info)] : []));
}

/**
 * Shows `items` as rows of a table's body. A row is kept while its key is, and a cell while its content is: focus and
 * selection stay where they are when the list is shown anew. `cells` gives [key of the content, () => element] a column.
 */
export function rows(body, items, key, cells) {
  const columns = [...body.closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
  const before = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, index) => {
    const row = before.get(key(item)) ?? el("tr", { "data-key": key(item), role: "row" });
    before.delete(key(item));
    cells(item).forEach(([content, make], column) => {
      let cell = row.cells[column];
      if (!cell) row.append((cell = el("td", { role: "cell", "data-label": columns[column] })));
      if (cell.dataset.content === String(content)) return;
      cell.dataset.content = content;
      cell.replaceChildren(make ? make() : String(content));
    });
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
  });
  for (const row of before.values()) row.remove();
  const table = body.closest("table");
  table.hidden = items.length === 0;
  const none = table.parentElement.querySelector(".none");
  if (none) none.hidden = items.length !== 0;
}

/** Asks before something is ended; `parts` are elements and text. Gives whether it is wanted. */
export function confirmed(question, parts, yes) {
  const dialog = el("dialog", { "aria-labelledby": "question", "aria-describedby": "question-text" });
  return new Promise((resolve) => {
    const leave = (answer) => () => {
      dialog.close();
      resolve(answer);
    };
    const keep = button("Cancel", null, leave(false));
    dialog.append(
      el("h2", { id: "question" }, question),
      el("p", { id: "question-text" }, ...parts),
      el("div", { class: "actions" }, keep, button(yes, null, leave(true), "danger")),
    );
    dialog.addEventListener("cancel", () => resolve(false));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    keep.focus();
  });
}

/** Copies a text; the clipboard's own way exists only for pages from https or localhost. */
export async function copy(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(source);
    return document.execCommand("copy");
  }
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (count >= 1000 && at < units.length - 1) {
    count /= 1000;
    at += 1;
  }
  return `${at && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[at]}`;
}

export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** A time of today, or with its date. */
export function moment(ms) {
  const at = new Date(ms);
  const today = at.toDateString() === new Date().toDateString();
  const shown = today ? at.toLocaleTimeString() : at.toLocaleString();
  return el("time", { datetime: at.toISOString(), title: at.toLocaleString() }, shown);
}
