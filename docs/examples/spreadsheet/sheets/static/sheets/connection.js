// A WebSocket that opens again when it closes, sooner at first and then more patiently.

const WAITS_SECONDS = [0.5, 1, 2, 4, 8];

export function connect(path, { heard, changed }) {
  let socket;
  let failures = 0;
  let timer;
  let away = false; // the page is kept only to go back to

  function open() {
    clearTimeout(timer);
    changed("wait", failures ? "Offline, trying again" : "Connecting");
    const address = new URL(path, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
    socket.addEventListener("message", (event) => {
      failures = 0;
      heard(JSON.parse(event.data));
    });
    socket.addEventListener("close", () => {
      if (away) return;
      const wait = WAITS_SECONDS[Math.min(failures, WAITS_SECONDS.length - 1)] * (0.75 + Math.random() / 2);
      failures += 1;
      changed("wait", "Offline, trying again");
      timer = setTimeout(open, wait * 1000);
    });
  }

  // Back from a tunnel, or from a tab in the background: no reason to wait any longer.
  function hurry() {
    if (!away && socket.readyState === WebSocket.CLOSED && !document.hidden) open();
  }
  addEventListener("online", hurry);
  document.addEventListener("visibilitychange", hurry);

  // A browser may keep a page that was left, and its socket: the others would still see it here.
  addEventListener("pagehide", () => {
    away = true;
    clearTimeout(timer);
    socket.close();
  });
  addEventListener("pageshow", (event) => {
    away = false;
    if (event.persisted) open();
  });

  open();
  return {
    send(message) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    },
  };
}
