// Drawing the turns of a session, changing only what has changed.

import { keyed, make, say, show } from "./dom.js";

const NOTES = {
  waiting: "",
  queued: "Waits for the answer before it",
  answering: "",
  stopping: "Stopping…",
  stopped: "Stopped",
  failed: "",
  cut: "Not finished: the session was closed",
  done: "",
};
const OPEN = new Set(["waiting", "answering"]);
const OVER = new Set(["done", "stopped", "failed"]);

/**
 * @typedef {object} TurnActions what a turn's buttons do
 * @property {(text: string) => void} say
 * @property {() => void} again
 */

/**
 * @param {Element} list
 * @param {import("./live-session.js").LiveSession} session
 * @param {TurnActions} actions
 */
export function drawTurns(list, session, actions) {
  const turns = session.transcript.turns();
  const pending = session.pending;
  const keys = [...turns.map((turn) => turn.key), ...pending.map((one) => one.partId)];
  const elements = keyed(list, keys, () => buildTurn(actions));
  for (const [index, element] of elements.entries()) {
    if (index < turns.length) {
      const isLast = index === turns.length - 1 && pending.length === 0 && session.closed === null;
      drawTurn(element, turns[index], isLast, actions);
    } else {
      drawPending(element, pending[index - turns.length]);
    }
  }
}

function buildTurn(actions) {
  const again = make("button", { type: "button", class: "link again", textContent: "Answer again" });
  again.addEventListener("click", actions.again);
  return make(
    "li",
    { class: "turn" },
    make("div", { class: "said" }),
    make("div", { class: "answer" }),
    make("p", { class: "dots", ariaLabel: "The agent is working", role: "img" }, make("i"), make("i"), make("i")),
    make("p", { class: "error" }),
    make("p", { class: "foot" }, make("span", { class: "state" }), again),
  );
}

function drawTurn(element, turn, isLast, actions) {
  const [said, answer, dots, error, foot] = element.children;
  const parts = turn.isReplaced ? [] : (turn.answer?.parts ?? []);
  drawSaid(said, turn.said.filter((input) => input.kind === "say" || input.kind === "action"));
  drawAnswer(answer, parts, { isLast, isOpen: turn.state === "answering" }, actions);
  const asks = isQuestion(parts.at(-1));
  show(dots, !turn.isReplaced && OPEN.has(turn.state) && !asks);
  say(error, (!turn.isReplaced && turn.answer?.error) || "");
  show(error, error.textContent !== "");
  drawFoot(foot, turn.isReplaced ? "" : NOTES[turn.state], isLast && OVER.has(turn.state) && turn.said.length > 0 && !asks);
  element.dataset.state = turn.state;
}

function drawPending(element, one) {
  const [said, , dots, error, foot] = element.children;
  drawSaid(said, [{ seq: one.partId, kind: "say", text: one.text }]);
  show(dots, false);
  say(error, one.state === "refused" ? `Not sent: ${one.trouble}` : "");
  show(error, one.state === "refused");
  drawFoot(foot, { sending: "Sending…", retrying: "No answer from the server; trying again", refused: "" }[one.state], false);
  element.dataset.state = one.state;
}

function drawFoot(foot, text, offersAgain) {
  const [state, again] = foot.children;
  say(state, text);
  show(again, offersAgain);
  show(foot, text !== "" || offersAgain);
}

function drawSaid(box, inputs) {
  const bubbles = keyed(box, inputs.map((input) => String(input.seq)), () => make("p", { class: "bubble" }));
  for (const [index, bubble] of bubbles.entries()) {
    say(bubble, inputs[index].kind === "action" ? "(an action)" : inputs[index].text);
  }
}

function drawAnswer(box, parts, { isLast, isOpen }, actions) {
  const keys = parts.map((part, index) => `${index}-${part.type}`);
  const elements = keyed(box, keys, (key) => buildPart(key.slice(key.indexOf("-") + 1), actions));
  for (const [index, element] of elements.entries()) {
    const isEnd = index === parts.length - 1;
    drawPart(element, parts[index], isLast && isEnd);
    element.classList.toggle("growing", isOpen && isEnd);
  }
}

function buildPart(type, actions) {
  if (type === "text") return make("p", { class: "text" });
  if (type === "tool") return make("p", { class: "tool" });
  if (type === "data-approval") return buildApproval(actions);
  const name = type === "reasoning" ? "Reasoning" : type;
  return make("details", { class: "aside" }, make("summary", {}, name), make("pre"));
}

function buildApproval(actions) {
  const buttons = make("div", { class: "options", role: "group" });
  buttons.addEventListener("click", ({ target }) => {
    if (target instanceof HTMLButtonElement) actions.say(target.textContent);
  });
  const question = make("p", { class: "question" });
  return make("section", { class: "approval", ariaLabel: "The agent asks" }, question, buttons, make("p", { class: "outcome" }));
}

function drawPart(element, part, isAnswerable) {
  if (part.type === "text") say(element, part.text);
  else if (part.type === "tool") say(element, `Used the tool ${part.text}`);
  else if (part.type === "data-approval") drawApproval(element, part.data, isAnswerable);
  else say(element.lastElementChild, part.text ?? JSON.stringify(part.data, null, 2));
}

/** Whether it is something that the user has been asked and that has not been decided in the meantime. */
function isQuestion(part) {
  return part?.type === "data-approval" && (part.data?.state ?? "open") === "open";
}

function drawApproval(element, data, isAnswerable) {
  const [question, buttons, outcome] = element.children;
  const state = String(data?.state ?? "open");
  const options = Array.isArray(data?.options) && data.options.length > 0 ? data.options.map(String) : ["yes", "no"];
  say(question, String(data?.question ?? "May the agent go on?"));
  const keys = options.map((_, index) => String(index));
  for (const [index, button] of keyed(buttons, keys, () => make("button", { type: "button" })).entries()) {
    say(button, options[index]);
  }
  show(buttons, isAnswerable && state === "open");
  element.classList.toggle("decided", state !== "open");
  say(outcome, state === "open" ? "" : state);
  show(outcome, state !== "open");
}
