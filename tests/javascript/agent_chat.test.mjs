// `AgentChat`: a chat with an agent from somebody's server.
import assert from "node:assert/strict";
import { sessions } from "@trigger.dev/sdk";
import { AgentChat } from "@trigger.dev/sdk/chat";
import { atOnce, call, completedTurns, follow, joined, newId, recordsOf, runsOf, scenario, slowAnswer, textOf, topic, until, within } from "./harness.mjs";

const newChat = (id, options = {}) => new AgentChat({ agent: "echo", id, ...options });

async function ask(chat, text) {
  return within((await chat.sendMessage(text)).text(), "an answer");
}

topic("AgentChat", () => {
  scenario("two turns in one session", async () => {
    const id = newId("agent");
    const told = [];
    const chat = newChat(id, {
      clientData: { userId: "z" },
      onTriggered: ({ runId }) => told.push(runId),
      onTurnComplete: ({ lastEventId }) => told.push(lastEventId),
    });
    assert.equal(await ask(chat, "one"), "you said: one");
    assert.equal(await ask(chat, "two"), "you said: two");
    const [run] = await runsOf(id);
    const ends = (await recordsOf(id, "out")).filter((record) => record.headers).map((record) => String(record.seqNum));
    assert.deepEqual(told, [run.runId, ...ends]);
    assert.deepEqual((await sessions.retrieve(id)).triggerConfig.basePayload, { trigger: "preload", chatId: id, metadata: { userId: "z" } });
  });

  scenario("a restored chat goes on after what it has seen", async () => {
    const id = newId("restored");
    const chat = newChat(id);
    await ask(chat, "one");
    assert.equal(await ask(newChat(id, { session: chat.session }), "two"), "you said: two");
  });

  scenario("a stop ends the turn, and the next answer is the next one's", async () => {
    const id = newId("stop");
    const chat = newChat(id);
    const stopped = follow((await chat.sendMessage("endless")).stream);
    await until(() => stopped.text().includes(" 2"), "the third delta");
    await chat.stop();
    await within(stopped.done, "the stopped stream");
    assert.equal(await ask(chat, "and now"), "you said: and now");
    assert.equal((await completedTurns(id)).length, 2);
  });

  scenario("reconnecting in mid-answer reads on to its end", async () => {
    const id = newId("mid");
    const chat = newChat(id);
    const lost = new AbortController();
    const first = follow((await chat.sendMessage("slow")).stream);
    await until(() => first.chunks.length > 5, "the middle of the answer");
    const again = newChat(id, { session: {} });
    const resumed = follow(await again.reconnect(lost.signal));
    assert.equal(joined(await within(resumed.done, "the answer")), slowAnswer("slow"));
    await within(first.done, "the first reader");
  });

  scenario("reconnecting to a settled session ends at once", async () => {
    const id = newId("settled");
    const chat = newChat(id);
    await ask(chat, "hi");
    assert.deepEqual(await atOnce(follow(await chat.reconnect()).done, "a settled stream"), []);
    assert.equal(await newChat(newId("never")).reconnect(), null);
  });

  scenario("regenerate and actions", async () => {
    const chat = newChat(newId("other"));
    await ask(chat, "one");
    assert.equal(await textOf(await chat.sendRaw([], { trigger: "regenerate-message" })), "once more: one");
    assert.equal(await within((await chat.sendAction({ type: "undo" })).text(), "the action"), 'did {"type": "undo"}');
  });

  scenario("close lets the agent go, and the next message finds a new one", async () => {
    const id = newId("close");
    const chat = newChat(id);
    await ask(chat, "one");
    assert.equal(await chat.close(), true);
    const [{ runId }] = await runsOf(id);
    await until(async () => (await call("GET", `/api/v1/runs/${runId}`)).body.status === "COMPLETED_SUCCESSFULLY", "the run's end");
    assert.equal((await sessions.retrieve(id)).closedAt, null);
    assert.equal(await ask(chat, "two"), "you said: two");
    assert.equal((await runsOf(id)).length, 2);
  });

  scenario("a closed session refuses messages", async () => {
    const id = newId("closed");
    const chat = newChat(id);
    await ask(chat, "one");
    await sessions.close(id);
    await assert.rejects(atOnce(chat.sendMessage("two"), "a refusal"), (error) => error.status === 409);
  });
});
