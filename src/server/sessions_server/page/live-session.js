// One session while it is shown: what is known of it, what is on its way to it, and the reading of its stream.

import { Refused } from "./api.js";
import { follow } from "./follow.js";
import { Transcript } from "./transcript.js";

/**
 * @typedef {object} Outgoing something said here that has not been seen on `in` yet
 * @property {string} partId
 * @property {string|null} text null for what is no message
 * @property {"sending"|"retrying"|"refused"} state
 * @property {string} trouble
 */

export class LiveSession {
  transcript = new Transcript();
  /** @type {any} its row, as the server shows it; null until it is known */
  row = null;
  /** @type {import("./follow.js").Connection} */
  connection = { name: "connecting" };
  /** @type {Error|null} why there is nothing to be read */
  problem = null;
  /** Whether what was there when it was opened has been read. */
  isCaughtUp = false;
  /** @type {Outgoing[]} */
  #outgoing = [];
  #closed = null;
  #life = new AbortController();
  /** @type {AbortController|null} */
  #reading = null;
  #hurry = new EventTarget();
  #queue = Promise.resolve();
  #askedFor = -1;

  /**
   * @param {import("./api.js").SessionApi} api
   * @param {() => void} onChange called after every change of what is to be shown
   * @param {() => void} onSaid called when something new is on `in`
   */
  constructor(api, onChange, onSaid) {
    this.api = api;
    this.onChange = onChange;
    this.onSaid = onSaid;
  }

  get id() {
    return this.api.id;
  }

  /** Why it is closed, or null if it is open. @returns {{reason: string|null}|null} */
  get closed() {
    if (this.transcript.closed !== null) return this.transcript.closed;
    return this.row?.closedAt ? { reason: this.row.closedReason } : this.#closed;
  }

  /** Messages of this tab that are not on `in` yet, as far as this tab knows. */
  get pending() {
    return this.#outgoing.filter((one) => one.text !== null && !this.transcript.hasPart(one.partId));
  }

  get isBusy() {
    return this.closed === null && this.transcript.isBusy;
  }

  /** Begin to read, or go on. */
  open() {
    if (this.#reading !== null) return;
    const reading = new AbortController();
    this.#reading = reading;
    follow(this.api, this.#reader(), reading.signal, this.#hurry).catch((error) => {
      if (reading.signal.aborted) return;
      this.problem = error;
      this.onChange();
    });
  }

  /** Stop reading for a while: the connection is given back. */
  rest() {
    this.#reading?.abort();
    this.#reading = null;
  }

  /** Be done with it. */
  leave() {
    this.rest();
    this.#life.abort();
  }

  /** Try at once what would be tried in a moment. */
  hurry() {
    this.#hurry.dispatchEvent(new Event("hurry"));
  }

  say(text) {
    const message = { id: randomId(), role: "user", parts: [{ type: "text", text }] };
    this.#send({ kind: "message", payload: { chatId: this.id, trigger: "submit-message", message } }, text);
  }

  /** Have the last message answered once more. */
  again() {
    this.#send({ kind: "message", payload: { chatId: this.id, trigger: "regenerate-message" } });
  }

  /** End the answer that is being written. */
  stop() {
    this.#send({ kind: "stop" });
  }

  async close(reason) {
    this.row = await this.api.close(reason);
    this.onChange();
  }

  /** Read what others have put on `in`. @param {AbortSignal} [signal] */
  async catchUp(signal = this.#life.signal) {
    for (const record of await this.api.readInputs(this.transcript.lastIn, signal)) this.transcript.addInput(record);
    this.onChange();
  }

  #reader() {
    return {
      position: () => this.transcript.lastOut,
      isOver: () => this.transcript.closed !== null,
      prepare: (signal) => this.#prepare(signal),
      take: (records, tail, signal) => this.#take(records, tail, signal),
      missed: () => {
        this.transcript.hasGap = true;
      },
      tell: (connection) => {
        this.connection = connection;
        this.onChange();
      },
    };
  }

  async #prepare(signal) {
    this.row = await this.api.get(signal);
    await this.catchUp(signal);
  }

  async #take(records, tail, signal) {
    const wanted = this.transcript.wants(records);
    if (wanted === "must" || (wanted === "may" && this.#askedFor !== this.transcript.completed)) {
      this.#askedFor = this.transcript.completed;
      await this.catchUp(signal);
    }
    for (const record of records) this.transcript.addOutput(record);
    this.isCaughtUp ||= this.transcript.lastOut + 1 >= tail;
    this.onChange();
  }

  #send(value, text = null) {
    const one = { partId: randomId(), text, state: "sending", trouble: "" };
    this.#outgoing.push(one);
    this.#queue = this.#queue.then(() => this.#deliver(one, value));
    this.onChange();
  }

  async #deliver(one, value) {
    const signal = this.#life.signal;
    try {
      await this.api.append(value, one.partId, (error) => this.#mark(one, "retrying", error), signal);
      this.onSaid();
      await this.catchUp();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refused)) return; // It is there; reading will show it when the connection is back.
      if (error.code === "session_closed") this.#closed = { reason: error.closedReason };
      this.#mark(one, "refused", error);
    }
  }

  #mark(one, state, error) {
    one.state = state;
    one.trouble = error.message;
    this.onChange();
  }
}

/** An id that nobody else has made. `crypto.randomUUID` is missing where the page does not come over HTTPS or loopback. */
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
