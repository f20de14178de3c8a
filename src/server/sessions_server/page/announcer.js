// What screen readers are told.

const LONGEST_ANNOUNCEMENT = 500;
const BUSY = new Set(["waiting", "queued", "answering", "stopping"]);

/** Tells screen readers when an answer is there: once and whole, not piece by piece, and not what was there before. */
export class Announcer {
  /** @type {Set<string>} */
  #told = new Set();
  #isReady = false;

  /** @param {Element} element a polite live region */
  constructor(element) {
    this.element = element;
  }

  /** Begin with another session. @param {boolean} isNew nothing was there before */
  reset(isNew) {
    this.#told.clear();
    this.#isReady = isNew;
    this.element.textContent = "";
  }

  /** @param {import("./live-session.js").LiveSession} session */
  tell(session) {
    for (const turn of session.transcript.turns()) {
      if (BUSY.has(turn.state) || this.#told.has(turn.key)) continue;
      this.#told.add(turn.key);
      if (this.#isReady) this.element.textContent = summary(turn);
    }
    this.#isReady ||= session.isCaughtUp;
  }
}

function summary(turn) {
  if (turn.state === "failed") return `The agent failed: ${turn.answer.error}`;
  const said = (turn.answer?.parts ?? []).map((part) => part.text ?? part.data?.question ?? "").join(" ");
  return `${turn.state === "stopped" ? "Stopped" : "The agent answered"}: ${said.slice(0, LONGEST_ANNOUNCEMENT)}`;
}
