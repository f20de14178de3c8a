// Server-sent events out of a fetch response. EventSource cannot send the headers that a session wants.

/**
 * @typedef {object} ServerEvent
 * @property {string} event
 * @property {string} data
 */

/** Cuts text that comes in arbitrary pieces into events. */
export class EventParser {
  #rest = "";
  #event = "message";
  /** @type {string[]} */
  #data = [];

  /**
   * @param {string} text the next piece
   * @returns {ServerEvent[]} the events that are complete now
   */
  push(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => this.#take(line.replace(/\r$/, ""))).filter((event) => event !== null);
  }

  #take(line) {
    if (line === "") return this.#finish();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#event = value;
    if (field === "data") this.#data.push(value);
    return null;
  }

  #finish() {
    const event = { event: this.#event, data: this.#data.join("\n") };
    const isEmpty = this.#data.length === 0;
    this.#event = "message";
    this.#data = [];
    return isEmpty ? null : event;
  }
}

/**
 * Read a response's events until it ends.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      yield* parser.push(piece.value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
