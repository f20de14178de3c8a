// Showing the state of the connection.

import { say, show } from "./dom.js";

let ticking = 0;

/**
 * Show how the stream is doing; a wait counts down by itself.
 *
 * @param {{connection: HTMLElement, retry: HTMLElement}} ui
 * @param {import("./live-session.js").LiveSession|null} session
 */
export function drawConnection(ui, session) {
  clearTimeout(ticking);
  const connection = session?.connection ?? null;
  const isOver = session === null || session.problem !== null || session.closed !== null;
  const isWaiting = !isOver && connection.name === "waiting";
  ui.connection.dataset.state = isOver ? "none" : connection.name;
  say(ui.connection, isOver ? "" : words(connection));
  show(ui.retry, isWaiting);
  if (isWaiting) ticking = setTimeout(() => drawConnection(ui, session), 250);
}

function words(connection) {
  if (connection.name === "live") return "connected";
  if (connection.name === "connecting") return "connecting…";
  const seconds = Math.max(0, Math.ceil((connection.until - Date.now()) / 1000));
  const where = navigator.onLine ? "connection lost" : "offline";
  return `${where}, trying again in ${seconds} s`;
}
