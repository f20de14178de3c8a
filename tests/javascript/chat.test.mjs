// `Chat`, the class behind the AI SDK's `useChat`, over the official transport.
import assert from "node:assert/strict";
import { Chat } from "@ai-sdk/react";
import { sessions } from "@trigger.dev/sdk";
import { atOnce, completedTurns, messageText, newId, newTransport, recordsOf, scenario, slowAnswer, topic, until, within } from "./harness.mjs";

/** A page with `useChat`. */
function open(id, transport = newTransport(), messages = []) {
  const errors = [];
  const chat = new Chat({ id, transport, messages, onError: (error) => errors.push(error) });
  return Object.assign(chat, { errors });
}

const say = (chat, text, options) => within(chat.sendMessage({ text }, options), "the answer");
const spoken = (chat) => chat.messages.map((message) => `${message.role}: ${messageText(message)}`);
const lastText = (chat) => messageText(chat.messages.at(-1));

/** Send a text whose answer takes its time; gives the running send when the third delta is there. */
async function begin(chat, text) {
  const sent = chat.sendMessage({ text });
  await until(() => chat.status === "streaming" && lastText(chat).includes(" 2"), "the third delta");
  return { sent };
}

topic("Chat of the AI SDK", () => {
  scenario("a conversation of two turns", async () => {
    const chat = open(newId("two"));
    await say(chat, "one");
    await say(chat, "two");
    assert.deepEqual(spoken(chat), ["user: one", "assistant: you said: one", "user: two", "assistant: you said: two"]);
    assert.deepEqual([chat.status, chat.errors], ["ready", []]);
    assert.equal(new Set(chat.messages.map((message) => message.id)).size, 4);
    assert.ok(chat.messages.every((message) => message.parts.every((part) => part.type !== "text" || part.state !== "streaming")));
  });

  scenario("an answer grows as it is written", async () => {
    const chat = open(newId("grows"));
    const { sent } = await begin(chat, "slow");
    assert.ok(lastText(chat).length < slowAnswer("slow").length);
    await within(sent, "the answer");
    assert.deepEqual([chat.status, lastText(chat)], ["ready", slowAnswer("slow")]);
  });

  scenario("stop keeps what was written, and the next answer is whole", async () => {
    const id = newId("stop");
    const chat = open(id);
    const { sent } = await begin(chat, "endless");
    await chat.stop();
    await within(sent, "the stopped send");
    assert.equal(chat.status, "ready");
    const kept = lastText(chat);
    assert.match(kept, /^you said: endless 1 2/);
    await until(async () => (await completedTurns(id)).length === 1, "the turn-complete");
    await say(chat, "and now");
    assert.deepEqual(spoken(chat), ["user: endless", `assistant: ${kept}`, "user: and now", "assistant: you said: and now"]);
  });

  scenario("regenerate replaces the answer", async () => {
    const chat = open(newId("again"));
    await say(chat, "one");
    await within(chat.regenerate(), "the new answer");
    assert.deepEqual(spoken(chat), ["user: one", "assistant: once more: one"]);
    await say(chat, "two");
    assert.equal(lastText(chat), "you said: two");
  });

  scenario("resumeStream after a reload shows the whole answer", async () => {
    const id = newId("reload");
    const kept = {};
    const transport = newTransport({ onSessionChange: (chatId, session) => (kept[chatId] = structuredClone(session)) });
    const page = open(id, transport);
    await begin(page, "slow");
    const state = structuredClone({ kept, messages: page.messages.slice(0, 1) });
    transport.dispose();

    const reloaded = open(id, newTransport({ sessions: state.kept }), state.messages);
    await within(reloaded.resumeStream(), "the answer");
    assert.deepEqual(spoken(reloaded), ["user: slow", `assistant: ${slowAnswer("slow")}`]);
    assert.deepEqual([reloaded.status, reloaded.errors], ["ready", []]);
    await say(reloaded, "more");
    assert.equal(lastText(reloaded), "you said: more");
  });

  scenario("resumeStream with nothing to resume is ready at once", async () => {
    const id = newId("nothing");
    const transport = newTransport();
    const chat = open(id, transport);
    await say(chat, "one");
    const reloaded = open(id, newTransport({ sessions: { [id]: transport.getSession(id) } }), chat.messages);
    await atOnce(reloaded.resumeStream(), "nothing");
    assert.deepEqual([reloaded.status, reloaded.messages.length], ["ready", 2]);
  });

  scenario("an agent that raises puts the chat into its error state, and it recovers", async () => {
    const chat = open(newId("error"));
    await say(chat, "fail now");
    assert.equal(chat.status, "error");
    assert.equal(chat.error.message, "The agent failed to answer this message.");
    assert.equal(chat.errors.length, 1);
    chat.clearError();
    await say(chat, "again");
    assert.deepEqual([chat.status, lastText(chat)], ["ready", "you said: again"]);
  });

  scenario("an action is sent in the body and answered in the stream", async () => {
    const id = newId("action");
    const chat = open(id);
    await say(chat, "one");
    await say(chat, "undo", { body: { action: { type: "undo" } } });
    assert.equal(lastText(chat), 'did {"type": "undo"}');
    const sent = (await recordsOf(id, "in")).map((record) => JSON.parse(record.data).payload);
    assert.deepEqual([sent[1].trigger, sent[1].action, sent[1].message], ["action", { type: "undo" }, undefined]);
  });

  scenario("a hand-over gives one message like any other", async () => {
    const chat = open(newId("upgrade"));
    await say(chat, "one");
    await say(chat, "upgrade");
    assert.deepEqual(spoken(chat), ["user: one", "assistant: you said: one", "user: upgrade", "assistant: you said: upgrade"]);
  });

  scenario("a message to a closed session is an error that names it", async () => {
    const id = newId("closed");
    const chat = open(id);
    await say(chat, "one");
    await sessions.close(id, { reason: "done" });
    await atOnce(chat.sendMessage({ text: "two" }), "the refusal");
    assert.deepEqual([chat.status, chat.error.code, chat.error.closedReason], ["error", "session_closed", "done"]);
  });
});
