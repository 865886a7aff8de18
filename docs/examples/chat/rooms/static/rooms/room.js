import { connect } from "./connection.js";

const byId = (id) => document.getElementById(id);
const log = byId("log");
const text = byId("text");

const HERE_SECONDS = 30; // how often a tab says that it is still there
const WRITING_SECONDS = 4; // how long somebody is taken to be writing after a key
const TOGETHER_SECONDS = 300; // messages of one author that follow this soon are shown as one
const NEAR_END_PIXELS = 80;

let you = "";
const shown = new Set(); // ids
let synced = false;
const pending = new Map(); // messages that the server has not confirmed, by key; they outlive a connection

// -- what is said -----------------------------------------------------------------------------------------------

function heard(message) {
  switch (message.type) {
    case "history":
      you = message.you;
      synced = true;
      showConnection("live", "Live");
      log.ariaBusy = "true"; // not to be read out from the start
      log.replaceChildren();
      shown.clear();
      message.messages.forEach(add);
      for (const [key, said] of pending) {
        log.append(line(said));
        connection.send({ type: "say", text: said.text, key });
      }
      toEnd();
      log.ariaBusy = "false";
      break;
    case "message": {
      const follow = nearEnd() || message.author === you;
      stopsWriting(message.author);
      if (add(message)) {
        if (follow) toEnd();
        else byId("jump").hidden = false;
      }
      break;
    }
    case "people":
      showPeople(message.names);
      break;
    case "writing":
      if (message.author !== you) startsWriting(message.author);
      break;
  }
  byId("empty").hidden = log.children.length > 0;
}

// Returns whether it is new.
function add(message) {
  if (message.author === you && pending.delete(message.key)) {
    log.querySelector(`[data-key="${CSS.escape(message.key)}"]`)?.remove();
  }
  if (shown.has(message.id)) return false;
  shown.add(message.id);
  // Two processes may overtake each other; what is not confirmed yet stays below.
  const later = [...log.children].find((item) => item.dataset.id === undefined || Number(item.dataset.id) > message.id);
  log.insertBefore(line(message, later ? later.previousElementSibling : undefined), later ?? null);
  return true;
}

function line({ author, text, sent_at: sentAt, key, id }, before = log.lastElementChild) {
  const when = new Date(sentAt);
  const pause = before ? when - new Date(before.dataset.when) : Infinity;
  const item = document.createElement("li");
  item.className = "message";
  item.dataset.author = author;
  item.dataset.when = sentAt;
  item.style.setProperty("--who", colour(author));
  item.classList.toggle("mine", author === you);
  item.classList.toggle("more", before?.dataset.author === author && pause < TOGETHER_SECONDS * 1000);
  if (id === undefined) {
    item.classList.add("pending");
    item.dataset.key = key;
  } else {
    item.dataset.id = id;
  }
  if (!before || new Date(before.dataset.when).toDateString() !== when.toDateString()) {
    item.dataset.day = when.toLocaleDateString("en", { weekday: "long", day: "numeric", month: "long" });
  }

  const badge = element("span", "badge", [...author][0].toUpperCase());
  badge.ariaHidden = "true";
  const time = element("time", "", when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false }));
  time.dateTime = sentAt;
  const said = element("p", "said");
  said.append(...linked(text));
  item.append(badge, element("b", "", author), time, said);
  return item;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,;:!?)])/).map((part, index) => {
    if (index % 2 === 0) return part;
    const link = element("a", "", part);
    link.href = part;
    link.rel = "noopener noreferrer";
    link.target = "_blank";
    return link;
  });
}

function colour(name) {
  let hash = 0;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 8191;
  return `var(--person-${hash % 8})`;
}

// -- the end of the log -------------------------------------------------------------------------------------------

function nearEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PIXELS;
}

function toEnd() {
  log.scrollTop = log.scrollHeight;
  byId("jump").hidden = true;
}

log.addEventListener("scroll", () => {
  if (nearEnd()) byId("jump").hidden = true;
});
byId("jump").addEventListener("click", () => {
  toEnd();
  text.focus();
});
new ResizeObserver(() => {
  if (byId("jump").hidden) toEnd(); // a keyboard has come up, or the message being written has grown
}).observe(log);

// -- saying it ----------------------------------------------------------------------------------------------------

let toldWriting = 0; // when

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = text.value.trim();
  if (!words) return;
  const key = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  const said = { author: you, text: words, key, sent_at: new Date().toISOString() };
  pending.set(key, said);
  log.append(line(said));
  byId("empty").hidden = true;
  if (synced) connection.send({ type: "say", text: words, key });
  text.value = "";
  toldWriting = 0;
  fit();
  toEnd();
  text.focus();
});

text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    byId("composer").requestSubmit();
  }
});

function fit() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

text.addEventListener("input", () => {
  fit();
  if (!synced || !text.value.trim() || Date.now() - toldWriting < (WRITING_SECONDS * 1000) / 2) return;
  toldWriting = Date.now();
  connection.send({ type: "writing" });
});

// -- who is here --------------------------------------------------------------------------------------------------

function showPeople(names) {
  byId("people").replaceChildren(
    ...names.map((name) => {
      const item = element("li", "", name);
      item.style.setProperty("--who", colour(name));
      item.classList.toggle("mine", name === you);
      return item;
    }),
  );
}

const writers = new Map(); // timers, by name

function startsWriting(name) {
  clearTimeout(writers.get(name));
  writers.set(name, setTimeout(() => stopsWriting(name), WRITING_SECONDS * 1000));
  showWriters();
}

function stopsWriting(name) {
  clearTimeout(writers.get(name));
  writers.delete(name);
  showWriters();
}

function showWriters() {
  const names = [...writers.keys()];
  const are = names.length > 1 ? "are" : "is";
  byId("writing").textContent = names.length ? `${new Intl.ListFormat("en").format(names)} ${are} writing` : "";
}

// -- the connection -----------------------------------------------------------------------------------------------

function showConnection(state, words) {
  const status = byId("connection");
  status.dataset.state = state;
  if (status.textContent !== words) status.textContent = words;
}

function changed(state, words) {
  synced = false;
  showConnection(state, words);
}

setInterval(() => synced && connection.send({ type: "here" }), HERE_SECONDS * 1000);
you = byId("account").textContent;
const connection = connect(document.body.dataset.path, { heard, changed });
if (matchMedia("(pointer: fine)").matches) text.focus();
