// The page: which session is shown, and what the keys and buttons do.

import { Announcer } from "./announcer.js";
import { createSession, listAgents, Refused, SessionApi } from "./api.js";
import { drawConnection } from "./connection.js";
import { byId, keyed, make, say, show } from "./dom.js";
import { LiveSession } from "./live-session.js";
import { forget, lastAgent, listRecent, remember, rememberAgent } from "./recent.js";
import { RunsPanel } from "./runs.js";
import { Scroller } from "./scroller.js";
import { Tabs } from "./tabs.js";
import { drawTurns } from "./turns.js";

/** A tab that nobody looks at gives its connection back after so long: browsers allow six for all tabs together. */
const UNSEEN = 20_000;
const TITLE_LENGTH = 60;
const NARROW = matchMedia("(max-width: 820px)");

const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const scroller = new Scroller(ui.scroll, ui["to-end"]);
const announcer = new Announcer(ui.announcer);

/** @type {{session: LiveSession, tabs: Tabs, runs: RunsPanel, listedAs: string|null}|null} what is shown; null for the start */
let shown = null;
let isCreating = false;
let isDrawn = true;
let isRunsOpen = false;
let unseen = 0;

// --- Going from one session to another ---

function route() {
  const id = /^#\/s\/([\w-]+)$/.exec(location.hash)?.[1] ?? null;
  if (id !== null && id === shown?.session.id) return;
  leave();
  if (id === null) showStart();
  else enter(new SessionApi(id));
}

function leave() {
  ui["confirm-close"].close("keep"); // It asked about what is shown no longer.
  shown?.session.leave();
  shown?.tabs.leave();
  shown?.runs.stop();
  shown = null;
  announcer.reset(false);
  scroller.toEnd();
  fail(null);
}

/** @param {SessionApi} api */
function enter(api) {
  const tabs = new Tabs(api.id, draw, () => session.catchUp().catch(() => {}));
  const session = new LiveSession(api, draw, () => shown?.tabs === tabs && tabs.said());
  shown = { session, tabs, runs: new RunsPanel(ui["run-rows"], api), listedAs: null };
  ui["run-rows"].replaceChildren();
  session.open();
  if (isRunsOpen) shown.runs.start();
  showList(false);
  ui.message.focus();
  draw();
  return session;
}

async function showStart() {
  draw();
  showList(false);
  try {
    drawAgents(await listAgents());
  } catch {
    fail("The server cannot be reached.");
  }
  ui.message.focus();
}

function drawAgents(agents) {
  const chosen = agents.some((agent) => agent.task === lastAgent()) ? lastAgent() : agents[0]?.task;
  ui.agents.replaceChildren(...agents.map((agent) => agentChoice(agent, agent.task === chosen)));
  if (agents.length === 0) fail("This server runs no agents. Start it with --agents module:agents.");
  draw();
}

function agentChoice({ task, summary }, checked) {
  const radio = make("input", { type: "radio", name: "agent", value: task, checked });
  return make("label", { class: "choice" }, radio, make("strong", {}, task), make("span", {}, summary));
}

function chosenAgent() {
  return ui.start.querySelector("input:checked")?.value ?? null;
}

// --- What people do ---

async function send() {
  const text = ui.message.value.trim();
  if (text === "" || isCreating || ui.message.disabled) return;
  write("");
  const session = shown?.session ?? (await begin());
  if (session === null) {
    write(ui.message.value || text);
    return;
  }
  scroller.toEnd();
  session.say(text);
}

/** Put a text into the message box. */
function write(text) {
  ui.message.value = text;
  grow();
}

/** Create a session with the chosen agent and show it. */
async function begin() {
  const task = chosenAgent();
  if (task === null) return null;
  isCreating = true;
  draw();
  try {
    const { externalId, token } = await createSession(task);
    rememberAgent(task);
    history.pushState(null, "", `#/s/${externalId}`);
    leave();
    announcer.reset(true);
    return enter(new SessionApi(externalId, token));
  } catch (error) {
    fail(error instanceof Refused ? error.message : "The server cannot be reached. Nothing was sent.");
    return null;
  } finally {
    isCreating = false;
    draw();
  }
}

async function closeSession() {
  ui["confirm-close"].showModal();
  await new Promise((resolve) => ui["confirm-close"].addEventListener("close", resolve, { once: true }));
  if (ui["confirm-close"].returnValue !== "close" || shown === null) return;
  shown.session.close("closed on the page").catch((error) => fail(`The session could not be closed: ${error.message}`));
}

function showRuns(isOpen) {
  isRunsOpen = isOpen;
  if (isOpen) shown?.runs.start();
  else shown?.runs.stop();
  draw();
}

function showList(isOpen) {
  document.body.classList.toggle("list-open", isOpen);
  ui["open-list"].setAttribute("aria-expanded", String(isOpen));
  if (isOpen) ui["close-list"].focus();
}

function stop() {
  if (shown?.session.isBusy) shown.session.stop();
}

// --- What people see ---

/** Draw before the next frame, however often it is asked for. */
function draw() {
  if (!isDrawn) return;
  isDrawn = false;
  requestAnimationFrame(() => {
    isDrawn = true;
    drawNow();
  });
}

function drawNow() {
  const session = shown?.session ?? null;
  const wasBusy = !ui.stop.hidden;
  drawHead(session);
  show(ui.start, session === null);
  if (session === null) ui.turns.replaceChildren();
  else drawTurns(ui.turns, session, { say: (text) => session.say(text), again: () => session.again() });
  drawNotes(session);
  drawComposer(session);
  drawList();
  show(ui.runs, isRunsOpen && session !== null);
  scroller.follow();
  if (session === null) return;
  announcer.tell(session);
  if (wasBusy !== !ui.stop.hidden && isRunsOpen) shown.runs.refresh();
}

function drawHead(session) {
  const title = session === null ? "New conversation" : titleOf(session);
  say(ui.title, title);
  document.title = session === null ? "Sessions" : `${title} · Sessions`;
  say(ui.agent, session?.row?.taskIdentifier ?? "");
  drawConnection(ui, session);
  const count = shown?.tabs.count ?? 1;
  say(ui.viewers, count > 1 ? `open in ${count} tabs` : "");
  show(ui["show-runs"], session !== null);
  ui["show-runs"].setAttribute("aria-pressed", String(isRunsOpen));
  show(ui["close-session"], session?.row != null && session.closed === null);
}

function drawNotes(session) {
  const closed = session?.closed ?? null;
  say(ui.closed, closed === null ? "" : `This session is closed${closed.reason ? `: ${closed.reason}` : ""}.`);
  show(ui.closed, closed !== null);
  show(ui.gap, session?.transcript.hasGap === true);
  if (session?.problem) fail(explain(session.problem));
}

function drawComposer(session) {
  const isOver = session !== null && (session.closed !== null || session.problem !== null);
  ui.message.disabled = isOver;
  ui.message.placeholder = isOver ? "No more messages can be sent here" : "Write a message";
  ui.send.disabled = isOver || isCreating || (session === null && chosenAgent() === null);
  show(ui.stop, session?.isBusy === true);
}

function drawList() {
  note(shown?.session ?? null);
  const entries = listRecent();
  const rows = keyed(ui.conversations, entries.map((entry) => entry.id), buildEntry);
  for (const [index, row] of rows.entries()) drawEntry(row, entries[index]);
  show(ui["no-conversations"], entries.length === 0);
}

/** Keep the list's entry for what is shown up to date. One that was taken off the list, perhaps in another tab, stays off. */
function note(session) {
  if (!session?.row) return;
  const title = titleOf(session);
  if (shown.listedAs === title) return;
  shown.listedAs = title;
  const known = listRecent().find((entry) => entry.id === session.id);
  if (known?.title === title) return;
  remember({ id: session.id, task: session.row.taskIdentifier, title, at: known?.at ?? Date.now() });
}

function buildEntry(id) {
  const remove = make("button", { type: "button", class: "quiet", textContent: "✕" });
  remove.addEventListener("click", () => {
    forget(id);
    if (shown?.session.id === id) location.hash = "#/";
    draw();
  });
  const link = make("a", { href: `#/s/${id}` }, make("strong"), make("span"));
  return make("li", {}, link, remove);
}

function drawEntry(row, { id, task, title, at }) {
  const [link, remove] = row.children;
  say(link.firstElementChild, title);
  say(link.lastElementChild, `${task} · ${new Date(at).toLocaleDateString(undefined, { dateStyle: "medium" })}`);
  remove.ariaLabel = `Remove “${title}” from this list`;
  if (id === shown?.session.id) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function titleOf(session) {
  const said = (session.transcript.title || session.pending[0]?.text) ?? "";
  const line = said.trim().split("\n")[0];
  if (line === "") return "Conversation";
  return line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH)}…` : line;
}

function explain(error) {
  if (error instanceof Refused && error.status === 404) return "This server knows no such conversation.";
  return `This conversation cannot be read: ${error.message}`;
}

function fail(text) {
  say(ui.problem, text ?? "");
  show(ui.problem, text !== null);
}

/** Make the message box as high as what is in it. */
function grow() {
  ui.message.style.height = "auto";
  ui.message.style.height = `${ui.message.scrollHeight + 2}px`;
}

// --- Events ---

ui.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
ui.start.addEventListener("submit", (event) => event.preventDefault());
ui.message.addEventListener("input", grow);
ui.message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || ui["confirm-close"].open) return;
  if (document.body.classList.contains("list-open")) {
    showList(false);
    ui["open-list"].focus();
  } else stop();
});
ui.skip.addEventListener("click", (event) => {
  event.preventDefault();
  ui.message.focus();
});
ui.new.addEventListener("click", () => showList(false));
ui.stop.addEventListener("click", stop);
ui.retry.addEventListener("click", () => shown?.session.hurry());
ui["close-session"].addEventListener("click", closeSession);
ui["show-runs"].addEventListener("click", () => showRuns(!isRunsOpen));
ui["open-list"].addEventListener("click", () => showList(true));
ui["close-list"].addEventListener("click", () => showList(false));
NARROW.addEventListener("change", () => showList(false));
window.addEventListener("hashchange", route);
window.addEventListener("popstate", route);
window.addEventListener("storage", draw);
window.addEventListener("pageshow", (event) => event.persisted && location.reload());
document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.visibilityState === "visible") shown?.session.open();
  else unseen = setTimeout(() => shown?.session.rest(), UNSEEN);
});

route();
