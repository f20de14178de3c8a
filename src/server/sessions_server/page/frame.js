// What is around the turns: the state of the connection, the scrolling, and what screen readers are told.

import { say, show } from "./dom.js";

const NEAR = 80;
const LONGEST_ANNOUNCEMENT = 500;
const BUSY = new Set(["waiting", "queued", "answering", "stopping"]);

/** Keeps the end in view while it is in view, and offers the way back to it when it is not. */
export class Scroller {
  #sticks = true;
  #top = 0;

  /** @param {HTMLElement} box @param {HTMLButtonElement} button */
  constructor(box, button) {
    this.box = box;
    this.button = button;
    box.addEventListener("scroll", () => this.#look(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.follow()).observe(box);
  }

  /** Go to the end and stay there. */
  toEnd() {
    this.#sticks = true;
    this.follow();
  }

  /** Call after something was drawn. */
  follow() {
    if (this.#sticks) this.box.scrollTop = this.box.scrollHeight;
    show(this.button, !this.#sticks);
  }

  /** Only going up is leaving the end: it also gets out of view when the box shrinks. */
  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.box;
    if (scrollHeight - scrollTop - clientHeight < NEAR) this.#sticks = true;
    else if (scrollTop < this.#top) this.#sticks = false;
    this.#top = scrollTop;
    show(this.button, !this.#sticks);
  }
}

/** Tells screen readers when an answer is there: once and whole, not piece by piece, and not what was there before. */
export class Announcer {
  /** @type {Set<string>} */
  #told = new Set();
  #isReady = false;

  /** @param {Element} element a polite live region */
  constructor(element) {
    this.element = element;
  }

  /** Begin with another conversation. @param {boolean} isNew nothing was there before */
  reset(isNew) {
    this.#told.clear();
    this.#isReady = isNew;
    this.element.textContent = "";
  }

  /** @param {import("./conversation.js").Conversation} conversation */
  tell(conversation) {
    for (const turn of conversation.transcript.turns()) {
      if (BUSY.has(turn.state) || this.#told.has(turn.key)) continue;
      this.#told.add(turn.key);
      if (this.#isReady) this.element.textContent = summary(turn);
    }
    this.#isReady ||= conversation.isCaughtUp;
  }
}

function summary(turn) {
  if (turn.state === "failed") return `The agent failed: ${turn.answer.error}`;
  const said = (turn.answer?.parts ?? []).map((part) => part.text ?? part.data?.question ?? "").join(" ");
  return `${turn.state === "stopped" ? "Stopped" : "The agent answered"}: ${said.slice(0, LONGEST_ANNOUNCEMENT)}`;
}

let ticking = 0;

/**
 * Show how the stream is doing; a wait counts down by itself.
 *
 * @param {{connection: HTMLElement, retry: HTMLElement}} ui
 * @param {import("./conversation.js").Conversation|null} conversation
 */
export function drawConnection(ui, conversation) {
  clearTimeout(ticking);
  const connection = conversation?.connection ?? null;
  const isOver = conversation === null || conversation.problem !== null || conversation.closed !== null;
  const isWaiting = !isOver && connection.name === "waiting";
  ui.connection.dataset.state = isOver ? "none" : connection.name;
  say(ui.connection, isOver ? "" : words(connection));
  show(ui.retry, isWaiting);
  if (isWaiting) ticking = setTimeout(() => drawConnection(ui, conversation), 250);
}

function words(connection) {
  if (connection.name === "live") return "connected";
  if (connection.name === "connecting") return "connecting…";
  const seconds = Math.max(0, Math.ceil((connection.until - Date.now()) / 1000));
  const where = navigator.onLine ? "connection lost" : "offline";
  return `${where}, trying again in ${seconds} s`;
}
