// From the records of a session's two channels to its turns. Nothing here waits, asks or draws.
//
// How this works: a `turn-complete` on `out` names the `in` record up to which everything is answered. So the inputs after
// the one before it belong to its turn, and what is on `out` after the last one is the answer to the oldest input left. A
// run that died in the middle of an answer leaves a piece of it behind. The run that answers again goes on with it, or says
// with `data-restart`, or with a `start` of its own, that it is void: only what follows a turn's last one of these counts.

/**
 * @typedef {object} Input
 * @property {number} seq
 * @property {"say"|"again"|"action"|"stop"} kind
 * @property {string} text
 * @property {string} partId
 *
 * @typedef {object} Part
 * @property {string} type `text`, `reasoning`, `tool`, or `data-…`
 * @property {string} [id]
 * @property {string} [text]
 * @property {any} [data]
 *
 * @typedef {object} Answer
 * @property {Part[]} parts
 * @property {string|null} error
 * @property {number} covers the last `in` seq that it answers, once it is complete
 * @property {boolean} isCut the session was closed in the middle of it
 *
 * @typedef {object} Turn
 * @property {string} key the same for the same turn, for as long as the session is shown
 * @property {Input[]} said
 * @property {Answer|null} answer
 * @property {"waiting"|"queued"|"answering"|"stopping"|"stopped"|"failed"|"cut"|"done"} state
 * @property {boolean} isReplaced a later turn has answered the same message again
 */

const TURN_COMPLETE = "turn-complete";
const RESTART = "data-restart";
const BEGINNINGS = new Set(["start", RESTART]);

export class Transcript {
  /** Seq of the last record of `in` and of `out` that has been taken; -1 before the first. */
  lastIn = -1;
  lastOut = -1;
  /** How many turns are complete. */
  completed = 0;
  /** @type {{reason: string|null}|null} */
  closed = null;
  /** Whether records were asked for that are no longer kept. */
  hasGap = false;
  /** @type {Input[]} */
  #inputs = [];
  /** @type {Answer[]} */
  #answers = [];
  /** @type {Answer|null} */
  #open = null;
  #covered = -1;

  /** @param {{seqNum: number, data: any, id: string}} record as `in/records` gives it */
  addInput(record) {
    if (record.seqNum <= this.lastIn) return;
    this.lastIn = record.seqNum;
    const input = readInput(record);
    if (input !== null) this.#inputs.push(input);
  }

  /** @param {{seq_num: number, headers?: [string, string][], body?: string}} record as the stream of `out` gives it */
  addOutput(record) {
    if (record.seq_num <= this.lastOut) return;
    this.lastOut = record.seq_num;
    const control = header(record, "trigger-control");
    if (control === TURN_COMPLETE) this.#complete(record);
    else if (control === null && header(record, "") === null) this.#write(readChunk(record));
  }

  /**
   * Tell what has to be read from `in` before these records of `out` can be shown in their place: `must` if they answer
   * inputs that have not been seen, `may` if nothing is known that they could answer.
   *
   * @returns {"must"|"may"|"no"}
   */
  wants(records) {
    let covered = this.#covered;
    let isOpen = this.#open !== null;
    for (const record of records) {
      if (header(record, "trigger-control") === TURN_COMPLETE) {
        covered = Math.max(covered, coverage(record));
        isOpen = false;
      } else if (header(record, "trigger-control") === null) {
        isOpen = true;
      }
    }
    if (covered > this.lastIn) return "must";
    return isOpen && !this.#inputs.some((input) => input.seq > covered && input.kind !== "stop") ? "may" : "no";
  }

  /** @param {string} partId */
  hasPart(partId) {
    return this.#inputs.some((input) => input.partId === partId);
  }

  /** The first thing the user said, or "". */
  get title() {
    return this.#inputs.find((input) => input.kind === "say")?.text ?? "";
  }

  /** Whether the agent is answering, or has something left to answer. */
  get isBusy() {
    const last = this.turns().at(-1);
    return last !== undefined && ["waiting", "queued", "answering", "stopping"].includes(last.state);
  }

  /** @returns {Turn[]} */
  turns() {
    const turns = [];
    const left = [...this.#inputs];
    for (const [number, answer] of this.#answers.entries()) {
      const end = left.findIndex((input) => input.seq > answer.covers);
      const said = left.splice(0, end < 0 ? left.length : end);
      addTurn(turns, { key: `turn-${number}`, said, answer, state: endState(said, answer) });
    }
    this.#addUnanswered(turns, left);
    return turns;
  }

  #addUnanswered(turns, left) {
    const groups = grouped(left);
    if (this.#open !== null && groups.length === 0) groups.push([]);
    for (const [number, said] of groups.entries()) {
      const answer = number === 0 ? this.#open : null;
      const key = `turn-${this.#answers.length + number}`;
      addTurn(turns, { key, said, answer, state: this.#openState(said, answer, number) });
    }
  }

  #openState(said, answer, number) {
    if (this.closed !== null) return "cut";
    if (number > 0) return "queued";
    if (said.some((input) => input.kind === "stop")) return "stopping";
    return answer === null ? "waiting" : "answering";
  }

  #complete(record) {
    const covers = coverage(record);
    const closes = header(record, "session-closed") === "true";
    if (closes) this.closed = { reason: header(record, "session-closed-reason") };
    const answer = this.#open;
    this.#covered = Math.max(this.#covered, covers);
    if (closes && answer === null) return; // What was not answered stays so.
    this.#open = null;
    this.completed += 1;
    this.#answers.push({ ...(answer ?? emptyAnswer()), covers: this.#covered, isCut: closes });
  }

  #write(chunk) {
    if (chunk === null) return;
    if (this.#open === null || BEGINNINGS.has(chunk.type)) this.#open = emptyAnswer();
    addChunk(this.#open, chunk);
  }
}

function emptyAnswer() {
  return { parts: [], error: null, covers: -1, isCut: false };
}

function addTurn(turns, turn) {
  const isAgain = turn.said[0]?.kind === "again";
  if (isAgain && turns.length > 0) turns.at(-1).isReplaced = true;
  turns.push({ ...turn, isReplaced: false });
}

/** Put each message together with the stops that came after it. */
function grouped(inputs) {
  const groups = [];
  for (const input of inputs) {
    if (input.kind !== "stop") groups.push([input]);
    else if (groups.length > 0) groups.at(-1).push(input);
  }
  return groups;
}

function endState(said, answer) {
  if (answer.isCut) return "cut";
  if (answer.error !== null) return "failed";
  const asked = said.findLast((input) => input.kind !== "stop");
  const wasStopped = asked !== undefined && said.some((input) => input.kind === "stop" && input.seq > asked.seq);
  return wasStopped ? "stopped" : "done";
}

function addChunk(answer, chunk) {
  if (BEGINNINGS.has(chunk.type)) return;
  const [kind, ...rest] = chunk.type.split("-");
  if ((kind === "text" || kind === "reasoning") && rest.length === 1) addText(answer, kind, rest[0], chunk);
  else if (kind === "data" && chunk.transient !== true) putPart(answer, { type: chunk.type, id: chunk.id, data: chunk.data });
  else if (chunk.type === "tool-input-available") putPart(answer, { type: "tool", id: chunk.toolCallId, text: chunk.toolName });
  else if (chunk.type === "error") answer.error = String(chunk.errorText ?? "The agent failed.");
}

function addText(answer, type, what, chunk) {
  if (what === "start") answer.parts.push({ type, id: chunk.id, text: "" });
  if (what !== "delta") return;
  let part = answer.parts.findLast((one) => one.type === type && one.id === chunk.id);
  if (part === undefined) {
    part = { type, id: chunk.id, text: "" };
    answer.parts.push(part);
  }
  part.text += String(chunk.delta ?? "");
}

/** Add a part; one with the id of an earlier part of the same type takes its place. */
function putPart(answer, part) {
  const index = part.id === undefined ? -1 : answer.parts.findIndex((one) => one.type === part.type && one.id === part.id);
  if (index < 0) answer.parts.push(part);
  else answer.parts[index] = part;
}

function header(record, name) {
  return (record.headers ?? []).find(([key]) => key === name)?.[1] ?? null;
}

function coverage(record) {
  const text = header(record, "session-in-event-id");
  return text === null ? -1 : Number(text);
}

/** Read a record's UI-message chunk; null if it holds none. */
function readChunk(record) {
  const chunk = parse(record.body)?.data;
  return typeof chunk?.type === "string" ? chunk : null;
}

function readInput(record) {
  const given = typeof record.data === "string" ? parse(record.data) : record.data;
  const kind = kindOf(given);
  if (kind === null) return null;
  return { seq: record.seqNum, kind, text: textOf(given.payload?.message), partId: record.id };
}

function kindOf(given) {
  if (given?.kind === "stop") return "stop";
  if (given?.kind !== "message") return null;
  const trigger = given.payload?.trigger ?? "submit-message";
  return { "submit-message": "say", "regenerate-message": "again", action: "action" }[trigger] ?? null;
}

function textOf(message) {
  const parts = Array.isArray(message?.parts) ? message.parts : [];
  return parts.filter((part) => part?.type === "text" && typeof part.text === "string").map((part) => part.text).join("");
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
