import { connect } from "./connection.js";
import { FormulaError, evaluate } from "./formulas.js";

const byId = (id) => document.getElementById(id);
const grid = byId("grid");
const bar = byId("bar");
const { columns, path, textMax } = grid.dataset;
const rows = Number(grid.dataset.rows);

const PRESENCE_SECONDS = 30; // how often a tab says where it is
const GAP_SECONDS = 1; // a channel layer drops messages for a tab that is too slow; then it asks for all again
const GONE_SECONDS = 150; // a tab that has been silent for longer is gone; in the background timers are slow
const NAMES = ["Basil", "Clover", "Dill", "Fennel", "Hazel", "Ivy", "Juniper", "Laurel", "Olive", "Rowan", "Sage", "Willow"];

// -- what the sheet is ------------------------------------------------------------------------------------------

const cells = new Map(); // texts by name, with what is pending
const revisions = new Map(); // of the cells that were edited since the snapshot
const pending = new Map(); // edits that the server has not confirmed, by cell; they outlive a connection
let base = 0; // revision of the snapshot
let whole = 0; // every edit up to this revision has come
const ahead = new Set(); // revisions that have come before one that has not
let resync; // timer
let edits = 0;
let you = "";
let synced = false;

function edit(name, text) {
  if (text === (cells.get(name) ?? "")) return;
  set(name, text);
  edits += 1;
  pending.set(name, { number: edits, text });
  sendEdit(name);
  render();
  showConnection();
}

function set(name, text) {
  if (text) cells.set(name, text);
  else cells.delete(name);
}

function sendEdit(name) {
  if (synced) connection.send({ type: "edit", cell: name, ...pending.get(name) });
}

function heard(message) {
  switch (message.type) {
    case "sheet":
      synced = true;
      if (you !== message.you) people.clear();
      you = message.you;
      base = whole = message.revision;
      clearTimeout(resync);
      ahead.clear();
      revisions.clear();
      cells.clear();
      for (const [name, text] of Object.entries(message.cells)) cells.set(name, text);
      for (const [name, { text }] of pending) {
        if ((cells.get(name) ?? "") === text) {
          pending.delete(name); // it had arrived before the connection broke
        } else {
          set(name, text);
          sendEdit(name);
        }
      }
      sayWhereYouAre();
      render();
      showPeople();
      break;
    case "edit": {
      const { by, cell, number, revision, text } = message;
      cameBy(revision);
      if (revision <= Math.max(base, revisions.get(cell) ?? 0)) break; // overtaken on the way
      revisions.set(cell, revision);
      if (by.id === you && pending.get(cell)?.number === number) pending.delete(cell);
      if (pending.has(cell)) break; // ours comes after it
      set(cell, text);
      render();
      if (by.id !== you) showEdit(by, cell, text);
      break;
    }
    case "presence":
      if (message.who.id !== you) people.set(message.who.id, { ...message.who, seen: Date.now() });
      showPeople();
      break;
    case "left":
      people.delete(message.id);
      showPeople();
      break;
  }
  showConnection();
}

// Revisions are numbered without a gap, so a tab knows what it has missed.
function cameBy(revision) {
  if (revision > whole) ahead.add(revision);
  while (ahead.delete(whole + 1)) whole += 1;
  clearTimeout(resync);
  if (ahead.size) resync = setTimeout(() => connection.send({ type: "resync" }), GAP_SECONDS * 1000);
}

let status = ["wait", "Connecting"];

function changed(...now) {
  status = now;
  synced = false;
  showConnection();
}

function showConnection() {
  let [state, text] = synced ? ["live", "Live"] : status;
  if (pending.size) {
    const count = pending.size === 1 ? "1 edit" : `${pending.size} edits`;
    text = synced ? `Saving ${count}` : `${text}; ${count} kept`;
  }
  const element = byId("connection");
  element.dataset.state = state;
  if (element.textContent !== text) element.textContent = text;
}

// -- how it looks -------------------------------------------------------------------------------------------------

const NOTHING = { value: "", shown: "" };

function render() {
  const results = evaluate(cells, { columns, rows });
  for (const element of grid.querySelectorAll("[role=gridcell]")) {
    const text = cells.get(element.id) ?? "";
    const { value, shown } = results.get(element.id) ?? NOTHING;
    if (element.firstChild.textContent !== shown) element.firstChild.textContent = shown;
    const level = /^(#{0,2})(?: |$)/.exec(text)?.[1].length ?? 0;
    const right = element.nextElementSibling?.id;
    const [column, row] = at(element.id);
    const headsNumbers = level === 2 && typeof results.get(`${columns[column]}${row + 2}`)?.value === "number";
    const classes = [
      typeof value === "number" || headsNumbers ? "number" : "",
      value instanceof FormulaError ? "wrong" : "",
      ["", "title", "heading"][level],
      text.replace(/^#{1,2} ?/, "").startsWith("=") ? "formula" : "",
      typeof value === "string" && value && !headsNumbers && right && !cells.get(right) ? "spill" : "",
      pending.has(element.id) ? "pending" : "",
    ];
    const state = ["editing", "flash", "here"].filter((name) => element.classList.contains(name));
    element.className = [...classes, ...state].filter(Boolean).join(" ");
  }
  if (!editing) bar.value = cells.get(current) ?? "";
}

function showEdit(by, name, text) {
  byId("last").textContent = text ? `${by.name} set ${name} to ${text}` : `${by.name} cleared ${name}`;
  const element = byId(name);
  element.style.setProperty("--who", colour(by.name));
  element.classList.remove("flash");
  void element.offsetWidth; // so that the animation starts over
  element.classList.add("flash");
}

// -- who is here ----------------------------------------------------------------------------------------------------

const people = new Map(); // the other tabs, by their id
const nameInput = byId("name");

function colour(name) {
  let hash = 0;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 8191;
  return `var(--person-${hash % 8})`;
}

function sayWhereYouAre() {
  if (synced) connection.send({ type: "presence", name: nameInput.value, cell: current });
}

function showPeople() {
  const list = [...people.values()].sort((one, two) => one.name.localeCompare(two.name));
  byId("people").replaceChildren(
    ...list.map(({ name, cell }) => {
      const item = document.createElement("li");
      item.style.setProperty("--who", colour(name));
      const where = document.createElement("small"); // here, since a tag at the cell would cover another one
      where.textContent = cell;
      item.append(`${name} `, where);
      return item;
    }),
  );
  for (const element of grid.querySelectorAll(".here")) {
    element.classList.remove("here");
    delete element.dataset.who;
    element.removeAttribute("title");
  }
  for (const { name, cell } of list) {
    const element = byId(cell);
    element.classList.add("here");
    element.dataset.who = element.dataset.who ? `${element.dataset.who}, ${name}` : name;
    element.title = element.dataset.who;
    element.style.setProperty("--who", colour(name));
  }
}

nameInput.value = sessionStorage.getItem("name") ?? NAMES[Math.floor(Math.random() * NAMES.length)];
function keepName() {
  nameInput.value = nameInput.value.trim() || NAMES[0];
  nameInput.style.setProperty("--who", colour(nameInput.value));
  sessionStorage.setItem("name", nameInput.value);
  sayWhereYouAre();
}
nameInput.addEventListener("change", keepName);
nameInput.addEventListener("keydown", (event) => {
  if (event.key === "Enter") nameInput.blur();
});

setInterval(() => {
  sayWhereYouAre();
  for (const [id, { seen }] of people) if (Date.now() - seen > GONE_SECONDS * 1000) people.delete(id);
  showPeople();
}, PRESENCE_SECONDS * 1000);

// -- moving about ---------------------------------------------------------------------------------------------------

let current = "A1";

function at(name) {
  return [columns.indexOf(name[0]), Number(name.slice(1)) - 1];
}

function nameAt(column, row) {
  const within = (value, count) => Math.max(0, Math.min(count - 1, value));
  return `${columns[within(column, columns.length)]}${within(row, rows) + 1}`;
}

function select(name, { focus = true } = {}) {
  const before = byId(current);
  before.tabIndex = -1;
  before.removeAttribute("aria-selected");
  for (const header of headersOf(current)) header.classList.remove("lit");
  const moved = name !== current;
  current = name;
  const element = byId(name);
  element.tabIndex = 0;
  element.setAttribute("aria-selected", "true");
  for (const header of headersOf(name)) header.classList.add("lit");
  if (focus) element.focus();
  byId("where").textContent = name;
  bar.value = cells.get(name) ?? "";
  if (moved) sayWhereYouAre();
}

function headersOf(name) {
  const [column] = at(name);
  return [grid.tHead.rows[0].cells[column + 1], byId(name).parentElement.cells[0]];
}

const PAGE_ROWS = 12;
const MOVES = {
  ArrowLeft: ([column, row]) => [column - 1, row],
  ArrowRight: ([column, row]) => [column + 1, row],
  ArrowUp: ([column, row]) => [column, row - 1],
  ArrowDown: ([column, row]) => [column, row + 1],
  PageUp: ([column, row]) => [column, row - PAGE_ROWS],
  PageDown: ([column, row]) => [column, row + PAGE_ROWS],
  Home: ([, row], far) => [0, far ? 0 : row],
  End: ([, row], far) => (far ? lastUsed() : [columns.length - 1, row]),
};

function lastUsed() {
  const used = [...cells.keys()].map(at);
  return [0, 1].map((axis) => Math.max(0, ...used.map((place) => place[axis])));
}

grid.addEventListener("keydown", (event) => {
  if (editing || event.altKey) return;
  const far = event.ctrlKey || event.metaKey;
  if (event.key in MOVES) {
    select(nameAt(...MOVES[event.key](at(current), far)));
  } else if (event.key === "Enter" || event.key === "F2") {
    startInCell(cells.get(current) ?? "");
  } else if (event.key === "Delete" || event.key === "Backspace") {
    edit(current, "");
  } else {
    // The key itself goes to the field that now has the focus.
    if (event.key.length === 1 && !far) startInCell("");
    return;
  }
  event.preventDefault();
});

grid.addEventListener("mousedown", (event) => {
  const element = event.target.closest("[role=gridcell]");
  if (!element || event.target === field) return;
  event.preventDefault();
  if (editing) stop(true);
  if (element.id === current && document.activeElement === element && matchMedia("(pointer: coarse)").matches) {
    startInCell(cells.get(current) ?? ""); // a second tap
  } else {
    select(element.id);
  }
});
grid.addEventListener("dblclick", (event) => {
  if (event.target.closest("[role=gridcell]") && !editing) startInCell(cells.get(current) ?? "");
});

// -- editing --------------------------------------------------------------------------------------------------------

// While one edits, in the cell or in the bar, the other shows the same text.
let editing = null;
const field = document.createElement("input");
field.maxLength = textMax;
field.className = "field";
field.autocomplete = "off";
field.spellcheck = false;

function startInCell(text) {
  const element = byId(current);
  editing = field;
  field.setAttribute("aria-label", `Contents of ${current}`);
  field.value = text;
  bar.value = text;
  element.classList.add("editing");
  element.append(field);
  field.focus();
}

function stop(keep) {
  const [element, text] = [byId(current), editing.value];
  const inCell = editing === field;
  editing = null;
  element.classList.remove("editing");
  if (inCell) field.remove();
  if (keep) edit(current, text.trim());
  render();
}

function finish(event, target) {
  if (event.isComposing) return;
  const sideways = event.key === "Tab" && target === field;
  if (event.key === "Enter" || sideways) {
    const step = event.shiftKey ? -1 : 1;
    const [column, row] = at(current);
    if (editing) stop(true);
    select(sideways ? nameAt(column + step, row) : nameAt(column, row + step));
  } else if (event.key === "Escape") {
    if (editing) stop(false);
    select(current);
  } else {
    return;
  }
  event.preventDefault();
  event.stopPropagation();
}

field.addEventListener("keydown", (event) => {
  finish(event, field);
  event.stopPropagation();
});
field.addEventListener("input", () => (bar.value = field.value));
field.addEventListener("blur", () => {
  if (editing === field) stop(true);
});

bar.addEventListener("focus", () => (editing = bar));
bar.addEventListener("input", () => (byId(current).firstChild.textContent = bar.value));
bar.addEventListener("keydown", (event) => finish(event, bar));
bar.addEventListener("blur", () => {
  if (editing === bar) stop(true);
});

// -- the clipboard --------------------------------------------------------------------------------------------------

const inGrid = () => !editing && document.activeElement?.getAttribute("role") === "gridcell";

for (const kind of ["copy", "cut"]) {
  document.addEventListener(kind, (event) => {
    if (!inGrid()) return;
    event.clipboardData.setData("text/plain", cells.get(current) ?? "");
    event.preventDefault();
    if (kind === "cut") edit(current, "");
  });
}
document.addEventListener("paste", (event) => {
  if (!inGrid()) return;
  event.preventDefault();
  const [column, row] = at(current);
  const lines = event.clipboardData.getData("text/plain").replace(/\r?\n$/, "").split(/\r?\n/);
  lines.slice(0, rows - row).forEach((line, down) => {
    line.split("\t").slice(0, columns.length - column).forEach((text, along) => {
      edit(nameAt(column + along, row + down), text.trim().slice(0, textMax));
    });
  });
});

const connection = connect(path, { heard, changed });
keepName();
select(current, { focus: false });
