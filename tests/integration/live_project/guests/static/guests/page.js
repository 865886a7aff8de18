"use strict";
const socket = new WebSocket(`ws://${location.host}/ws`);
socket.onmessage = (event) => {
  document.getElementById("said").textContent = event.data;
};
document.getElementById("name").onchange = (event) => socket.send(event.target.value);
