const base = new URL(location.pathname.replace(/\/*$/, "/"), location.origin);
const byId = (id) => document.getElementById(id);

function show(status, state, text) {
  status.dataset.state = state;
  status.textContent = text;
}

function bytesText(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(Math.max(count, 1)) / 3), units.length - 1);
  return `${(count / 1000 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

const timeText = (moment) => new Date(moment).toLocaleTimeString([], { hour12: false });

/* Clock: closed while the tab is hidden, for a browser keeps only six HTTP/1.1 connections to a host. */

let clock = null;

function openClock() {
  if (clock || document.hidden) return;
  clock = new EventSource(new URL("clock", base));
  show(byId("clock-status"), "wait", "Opening the stream");
  clock.onmessage = (message) => {
    const { time, tick } = JSON.parse(message.data);
    byId("clock").dateTime = time;
    byId("clock").textContent = timeText(time);
    show(byId("clock-status"), "live", tick === 1 ? "Streaming, first event" : `Streaming, ${tick} events so far`);
    byId("clock-leaf").classList.remove("tick");
    requestAnimationFrame(() => byId("clock-leaf").classList.add("tick"));
  };
  clock.onerror = () => {
    const ended = clock?.readyState === EventSource.CLOSED;
    show(byId("clock-status"), ended ? "idle" : "wait", ended ? "The stream is not available" : "The stream ended, opening it again");
  };
}

function closeClock() {
  clock?.close();
  clock = null;
  show(byId("clock-status"), "idle", "Stopped");
}

document.addEventListener("visibilitychange", () => (document.hidden ? closeClock() : openClock()));
addEventListener("pagehide", closeClock);
addEventListener("pageshow", openClock);

/* Upload: the first bar is the browser's own count, the second is the application's. */

let request = null;

// Not crypto.randomUUID: that one exists on https and localhost only.
const randomId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");

function meter(name, count, total) {
  byId(`upload-${name}`).value = total ? count / total : 1;
  byId(`upload-${name}-text`).textContent = bytesText(count);
}

function allowUploads(allowed) {
  byId("upload-send").disabled = byId("upload-sample").disabled = !allowed;
  byId("upload-cancel").hidden = allowed;
}

function noise(size) {
  const block = crypto.getRandomValues(new Uint8Array(50_000)); // 65 536 at most
  return new Blob(Array(size / block.length).fill(block));
}

// Calls back once, when the stream is open or cannot be.
function watchUpload(id, total, ready) {
  const progress = new EventSource(new URL(`upload/${id}/progress`, base));
  const report = (message) => meter("received", JSON.parse(message.data).bytes, total);
  progress.addEventListener("progress", report);
  progress.addEventListener("end", (message) => {
    report(message);
    progress.close();
  });
  progress.addEventListener("open", ready, { once: true });
  progress.addEventListener("error", () => {
    progress.close();
    ready();
  });
  return progress;
}

function upload(body) {
  const id = randomId();
  const pace = byId("upload-slow").checked ? "&pace=slow" : "";
  byId("upload-meters").hidden = false;
  byId("upload-result").hidden = true;
  meter("sent", 0, body.size || 1);
  meter("received", 0, body.size || 1);
  allowUploads(false);
  show(byId("upload-status"), "busy", `Uploading ${bytesText(body.size)}`);

  const current = (request = new XMLHttpRequest());
  const progress = watchUpload(id, body.size, () => {
    if (current !== request || current.readyState !== XMLHttpRequest.UNSENT) return;
    current.open("PUT", new URL(`upload?id=${id}${pace}`, base));
    current.send(body);
  });
  current.responseType = "json";
  current.upload.onprogress = (event) => meter("sent", event.loaded, body.size);
  current.upload.onload = () => meter("sent", body.size, body.size);
  current.onload = () => (current.status === 200 ? uploaded(current.response) : failed(`The server answered ${current.status}`));
  current.onerror = () => failed("The connection was lost");
  current.onabort = () => failed("Cancelled");
  current.onloadend = () => setTimeout(() => progress.close(), 1000);
  byId("upload-cancel").onclick = () => {
    if (current.readyState === XMLHttpRequest.UNSENT) failed("Cancelled");
    request = null;
    progress.close();
    current.abort();
  };
}

function uploaded(result) {
  allowUploads(true);
  meter("received", result.bytes, result.bytes);
  byId("upload-bytes").textContent = result.bytes.toLocaleString();
  byId("upload-chunks").textContent = result.chunks.toLocaleString();
  byId("upload-seconds").textContent = result.seconds;
  byId("upload-sha256").textContent = result.sha256;
  byId("upload-result").hidden = false;
  show(byId("upload-status"), "live", "Uploaded. The application counted:");
}

function failed(reason) {
  allowUploads(true);
  show(byId("upload-status"), "idle", reason);
}

byId("upload-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const file = byId("upload-file").files[0];
  if (file) upload(file);
  else byId("upload-file").click();
});
byId("upload-sample").addEventListener("click", () => upload(noise(32_000_000)));

/* Chat: a socket that never opened is tried twice, a lost one at growing intervals; then only on request. */

const DELAYS_NEVER_OPENED = [3];
const DELAYS_LOST = [1, 3, 10, 30, 60];
const SETTLED_AFTER = 10_000;
const LOG_LENGTH = 200;
const NAMES = ["Ash", "Bay", "Briar", "Fern", "Hazel", "Ivy", "Juniper", "Laurel", "Linden", "Myrtle", "Olive", "Rowan"];

let socket = null;
let attempts = 0;
let everOpened = false;

function openChat() {
  byId("chat-retry").hidden = true;
  show(byId("chat-status"), "wait", "Opening the socket");
  let settled = 0;
  try {
    const address = new URL("chat", base);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(address);
  } catch {
    return giveUp();
  }
  socket.onopen = () => {
    everOpened = true;
    settled = setTimeout(() => (attempts = 0), SETTLED_AFTER);
  };
  socket.onmessage = (message) => hear(JSON.parse(message.data));
  socket.onclose = () => {
    clearTimeout(settled);
    const delay = (everOpened ? DELAYS_LOST : DELAYS_NEVER_OPENED)[attempts++];
    byId("chat-send").disabled = true;
    if (delay === undefined) return giveUp();
    if (everOpened) show(byId("chat-status"), "wait", "The socket closed, opening it again");
    setTimeout(openChat, delay * 1000);
  };
}

function giveUp() {
  show(byId("chat-status"), "idle", "WebSocket is not available on this connection");
  byId("chat-room").hidden = true;
  byId("chat-retry").hidden = false;
}

let protocol = "";

function hear(said) {
  if (said.type === "welcome") {
    protocol = said.protocol;
    byId("chat-room").hidden = false;
    byId("chat-send").disabled = false;
    byId("chat-log").replaceChildren(...said.history.map(line));
    scrollToEnd();
  } else if (said.type === "message") {
    const log = byId("chat-log");
    log.append(line(said));
    while (log.children.length > LOG_LENGTH) log.firstChild.remove();
    scrollToEnd();
  } else if (said.type === "online") {
    const company = said.count === 1 ? "only this tab so far" : `${said.count} tabs here`;
    show(byId("chat-status"), "live", `Open over ${protocol}, ${company}`);
  }
}

function scrollToEnd() {
  byId("chat-log").scrollTop = byId("chat-log").scrollHeight;
}

function line({ name, text, time }) {
  const item = document.createElement("li");
  const [who, what, when] = ["b", "span", "time"].map((tag) => item.appendChild(document.createElement(tag)));
  item.classList.toggle("mine", name === byId("chat-name").value.trim());
  who.textContent = name;
  what.textContent = text;
  when.textContent = timeText(time * 1000);
  when.dateTime = new Date(time * 1000).toISOString();
  return item;
}

// Storage may be forbidden; the name then lasts as long as the page.
function remembered(name) {
  try {
    if (name) sessionStorage.setItem("daphne-ng-name", name);
    return sessionStorage.getItem("daphne-ng-name");
  } catch {
    return null;
  }
}

const pick = (list) => list[Math.floor(Math.random() * list.length)];
byId("chat-name").value = remembered() ?? `${pick(NAMES)} ${Math.floor(Math.random() * 90) + 10}`;
byId("chat-name").addEventListener("change", () => remembered(byId("chat-name").value));

byId("chat-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [name, text] = [byId("chat-name").value, byId("chat-text").value];
  if (socket?.readyState !== WebSocket.OPEN || !text.trim()) return;
  socket.send(JSON.stringify({ name, text }));
  byId("chat-text").value = "";
});
byId("chat-retry").addEventListener("click", () => {
  attempts = 0;
  openChat();
});

allowUploads(true);
openClock();
openChat();
