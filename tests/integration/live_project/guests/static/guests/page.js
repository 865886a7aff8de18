"use strict";
const socket = new WebSocket(`ws://${location.host}/ws`);
const open = new Promise((resolve) => (socket.onopen = resolve));
socket.onmessage = (event) => {
  document.getElementById("said").textContent = event.data;
};
document.getElementById("name").onchange = async (event) => {
  const name = event.target.value;
  await open;
  socket.send(name);
};
