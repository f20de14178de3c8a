// The calls that the page makes. It never holds a key: `/page/…` gives it tokens, each for one session and a few minutes.

import { pause } from "./pause.js";

const PATIENCE = [500, 1000, 2000, 4000, 5000];

/** What the server answered instead of what was asked for. */
export class Refused extends Error {
  /** @param {number} status @param {any} body */
  constructor(status, body) {
    super(body?.error ?? `The server answered with status ${status}`);
    this.status = status;
    this.code = body?.code ?? "";
    this.closedReason = body?.closedReason ?? null;
  }

  /** Whether the same request may be answered otherwise in a moment. */
  get isPassing() {
    return this.status >= 500 || this.status === 429 || this.code === "claim_exhausted" || this.code === "conflict";
  }
}

/** Milliseconds to wait before trying for the `attempt`th time, a little different for each tab. */
export function backoff(attempt) {
  return PATIENCE[Math.min(attempt, PATIENCE.length) - 1] * (0.8 + 0.4 * Math.random());
}

/** @returns {Promise<{task: string, summary: string}[]>} */
export async function listAgents() {
  return (await read(await fetch("/page/agents"))).agents;
}

/** Create a session; the answer holds its external id and a token for it. */
export function createSession(task) {
  return post("/page/sessions", { task });
}

/** One session, called with its own token. */
export class SessionApi {
  #token;

  /** @param {string} id the external id @param {string|null} token renewed when it is missing or over */
  constructor(id, token = null) {
    this.id = id;
    this.#token = token;
    this.#name = encodeURIComponent(id);
  }

  #name;

  /** @param {AbortSignal} signal */
  async get(signal) {
    return read(await this.#call(`/api/v1/sessions/${this.#name}`, { signal }));
  }

  async listRuns() {
    return (await read(await this.#call(`/api/v1/sessions/${this.#name}/runs?limit=20`))).data;
  }

  async getRun(run) {
    return read(await this.#call(`/api/v1/runs/${encodeURIComponent(run)}`));
  }

  /** The records of `in` after a seq. */
  async readInputs(after, signal) {
    const query = after < 0 ? "" : `?afterEventId=${after}`;
    return (await read(await this.#call(`/realtime/v1/sessions/${this.#name}/in/records${query}`, { signal }))).records;
  }

  async close(reason) {
    return read(await this.#call(`/api/v1/sessions/${this.#name}/close`, { method: "POST", body: JSON.stringify({ reason }) }));
  }

  /** Open the stream of `out` after a seq. */
  async stream(after, signal) {
    const headers = { Accept: "text/event-stream", "Timeout-Seconds": "600" };
    if (after >= 0) headers["Last-Event-ID"] = String(after);
    const response = await this.#call(`/realtime/v1/sessions/${this.#name}/out`, { headers, signal });
    return response.ok ? response : read(response);
  }

  /**
   * Append to `in`, again and again until the server has answered. The part id makes it one record, however often it is tried.
   *
   * @param {any} value @param {string} partId @param {(error: Error) => void} onTrouble @param {AbortSignal} signal
   */
  async append(value, partId, onTrouble, signal) {
    const path = `/realtime/v1/sessions/${this.#name}/in/append`;
    const request = { method: "POST", headers: { "X-Part-Id": partId }, body: JSON.stringify(value), signal };
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await read(await this.#call(path, request));
      } catch (error) {
        if (signal.aborted || (error instanceof Refused && !error.isPassing)) throw error;
        onTrouble(error);
        await pause(backoff(attempt), signal);
      }
    }
  }

  async #call(path, request = {}) {
    const first = await this.#send(path, request);
    if (first.status !== 401 && first.status !== 403) return first;
    this.#token = null;
    return this.#send(path, request);
  }

  async #send(path, request) {
    this.#token ??= (await post("/page/tokens", { session: this.id }, request.signal)).token;
    const type = request.body === undefined ? {} : { "Content-Type": "application/json" };
    return fetch(path, { ...request, headers: { ...type, ...request.headers, Authorization: `Bearer ${this.#token}` } });
  }
}

async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return read(await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal }));
}

async function read(response) {
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, body);
  return body;
}
