// Reading `out` for as long as a session is shown, whatever happens to the connection or to the server.

import { backoff, Refused } from "./api.js";
import { pause } from "./pause.js";
import { readEvents } from "./sse.js";

/** A stream says something every few seconds, if only a ping; after so long a silence it is taken for dead. */
const SILENCE = 60_000;
/** A stream that ends at once, again and again, is not asked at once again. */
const SHORT = 1000;

/**
 * @typedef {{name: "connecting"}|{name: "live"}|{name: "waiting", until: number}} Connection
 *
 * @typedef {object} Reader
 * @property {() => number} position the seq after which to read
 * @property {(signal: AbortSignal) => Promise<void>} prepare done before each time that the stream is opened
 * @property {(records: any[], tail: number, signal: AbortSignal) => Promise<void>} take records, and the seq of the next one that there will be
 * @property {() => void} missed records were asked for that are no longer kept
 * @property {() => boolean} isOver nothing more is to come
 * @property {(connection: Connection) => void} tell
 */

/**
 * Follow until the signal is aborted or the reader has all there will be.
 *
 * @param {import("./api.js").SessionApi} api
 * @param {Reader} reader
 * @param {AbortSignal} signal
 * @param {EventTarget} hurry a `hurry` event ends a wait between two attempts
 * @throws {Refused} the server will never answer otherwise
 */
export async function follow(api, reader, signal, hurry) {
  let failures = 0;
  while (!reader.isOver()) {
    const began = Date.now();
    const trouble = await readOnce(api, reader, signal);
    if (reader.isOver()) return;
    const lasted = Date.now() - began > SHORT;
    if (trouble === null && lasted) continue; // Its window is over.
    failures = lasted ? 1 : failures + 1;
    const milliseconds = backoff(failures);
    reader.tell({ name: "waiting", until: Date.now() + milliseconds });
    await pause(milliseconds, signal, hurry);
    reader.tell({ name: "connecting" });
  }
}

/** Read one response to its end. Returns what broke it, or null. */
async function readOnce(api, reader, signal) {
  const watch = watchdog();
  const either = AbortSignal.any([signal, watch.signal]);
  try {
    await reader.prepare(either);
    const response = await api.stream(reader.position(), either);
    if (response.headers.has("X-Session-Gap")) reader.missed();
    reader.tell({ name: "live" });
    await takeAll(response.body, reader, watch, either);
    return null;
  } catch (error) {
    if (signal.aborted || (error instanceof Refused && !error.isPassing)) throw error;
    return error;
  } finally {
    watch.stop();
  }
}

async function takeAll(body, reader, watch, signal) {
  for await (const { event, data } of readEvents(body)) {
    watch.feed();
    if (event === "error") throw new Error(JSON.parse(data).message);
    if (event !== "batch" && event !== "ping") continue;
    const { records = [], tail } = JSON.parse(data);
    await reader.take(records, tail.seq_num, signal);
    if (reader.isOver()) return;
  }
}

/** Aborts its signal when it is not fed. */
function watchdog() {
  const silent = new AbortController();
  const begin = () => setTimeout(() => silent.abort(new Error("The connection went silent")), SILENCE);
  let timer = begin();
  const stop = () => clearTimeout(timer);
  const feed = () => {
    stop();
    timer = begin();
  };
  return { feed, stop, signal: silent.signal };
}
