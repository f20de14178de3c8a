// The sessions that this browser has shown lately. Only their ids make it possible to come back, so they are kept here and nowhere else.

const STORE = "sessions.conversations";
const AGENT = "sessions.agent";
const KEPT = 100;

/**
 * @typedef {object} Entry
 * @property {string} id
 * @property {string} task
 * @property {string} title
 * @property {number} at when it was first shown here, Unix ms
 */

/** @returns {Entry[]} the latest first */
export function listRecent() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE) ?? "[]");
    return Array.isArray(found) ? found.filter(isEntry) : [];
  } catch {
    return [];
  }
}

/** Put an entry at the top. @param {Entry} entry */
export function remember(entry) {
  write(STORE, JSON.stringify([entry, ...others(entry.id)].slice(0, KEPT)));
}

/** Take an entry off the list; the session itself stays. @param {string} id */
export function forget(id) {
  write(STORE, JSON.stringify(others(id)));
}

/** The agent that was chosen last. */
export function lastAgent() {
  try {
    return localStorage.getItem(AGENT);
  } catch {
    return null;
  }
}

/** @param {string} task */
export function rememberAgent(task) {
  write(AGENT, task);
}

/** Anything on this origin may have written there, and earlier versions of the page. */
function isEntry(entry) {
  return [entry?.id, entry?.task, entry?.title].every((text) => typeof text === "string") && Number.isFinite(entry.at);
}

function others(id) {
  return listRecent().filter((entry) => entry.id !== id);
}

/** A browser that stores nothing still shows sessions; only their list is lost. */
function write(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    return;
  }
}
