// The runs underneath a session, as they come and go.

import { keyed, make, say } from "./dom.js";

const EVERY = 2000;
const FINAL = new Set(["COMPLETED_SUCCESSFULLY", "COMPLETED_WITH_ERRORS", "TIMED_OUT", "CRASHED", "CANCELED", "EXPIRED"]);
const WORDS = {
  PENDING: "starting",
  EXECUTING: "running",
  RETRYING_AFTER_FAILURE: "trying again",
  COMPLETED_SUCCESSFULLY: "completed",
  COMPLETED_WITH_ERRORS: "failed",
  TIMED_OUT: "timed out",
  CRASHED: "crashed",
  CANCELED: "canceled",
};

export class RunsPanel {
  /** @type {Map<string, any>} */
  #known = new Map();
  #timer = 0;
  #isAsking = false;

  /**
   * @param {Element} list
   * @param {import("./api.js").SessionApi} api
   */
  constructor(list, api) {
    this.list = list;
    this.api = api;
  }

  start() {
    this.stop();
    this.refresh();
    this.#timer = setInterval(() => document.visibilityState === "visible" && this.refresh(), EVERY);
  }

  stop() {
    clearInterval(this.#timer);
  }

  /** Ask again, unless that is under way; what cannot be read now is read the next time. */
  async refresh() {
    if (this.#isAsking) return;
    this.#isAsking = true;
    try {
      const rows = await this.api.listRuns();
      this.#draw(await Promise.all(rows.map((row) => this.#detail(row))));
    } catch {
      return;
    } finally {
      this.#isAsking = false;
    }
  }

  async #detail(row) {
    const known = this.#known.get(row.runId);
    if (known !== undefined && FINAL.has(known.status)) return known;
    const run = { ...(await this.api.getRun(row.runId)), reason: row.reason };
    this.#known.set(row.runId, run);
    return run;
  }

  #draw(runs) {
    const rows = keyed(this.list, runs.map((run) => run.id), buildRow);
    for (const [index, row] of rows.entries()) drawRow(row, runs[index]);
  }
}

function buildRow() {
  return make("li", {}, make("span", { class: "badge" }), make("code"), make("span", { class: "why" }));
}

function drawRow(row, run) {
  const [badge, id, why] = row.children;
  const attempt = run.attempt > 1 ? `, attempt ${run.attempt}` : "";
  const began = new Date(run.startedAt ?? run.createdAt).toLocaleTimeString();
  row.dataset.status = FINAL.has(run.status) ? run.status : "ALIVE";
  say(badge, WORDS[run.status] ?? run.status.toLowerCase());
  say(id, run.id);
  say(why, `${run.reason}${attempt} · ${run.startedAt ? "started" : "made"} ${began}`);
}
