// The server is killed with -9 in the middle of everything and started again on its port.
import assert from "node:assert/strict";
import { before } from "node:test";
import { Chat } from "@ai-sdk/react";
import { sessions } from "@trigger.dev/sdk";
import { AgentChat } from "@trigger.dev/sdk/chat";
import {
  ask, completedTurns, follow, joined, message, messageText, newId, newSession, newTransport, recordsOf, restartServer, runsOf, scenario, send, slowAnswer,
  topic, until, within,
} from "./harness.mjs";

const PATIENCE_MS = 25_000;

topic("a server that is killed", () => {
  const [page, agent, hook, changed, idle, waiting] = ["page", "agent", "hook", "changed", "idle", "waiting"].map(newId);
  const [transport, quiet] = [newTransport(), newTransport()];
  const useChat = new Chat({ id: hook, transport: newTransport() });
  const streams = {};

  before(async () => {
    streams.page = follow(await send(transport, page, "slow"));
    streams.agent = follow((await new AgentChat({ agent: "echo", id: agent }).sendMessage("slow")).stream);
    streams.changed = follow(await send(newTransport(), changed, "fickle"));
    streams.hook = { done: useChat.sendMessage({ text: "slow" }) };
    await ask(quiet, idle, "before");
    await newSession(waiting);
    const inTheMiddle = ({ chunks }) => chunks === undefined || chunks.length > 5;
    await until(() => Object.values(streams).every(inTheMiddle) && useChat.status === "streaming", "the middle of all answers");
    streams.before = await recordsOf(page, "out");
    await restartServer();
  });

  const endOf = (stream) => within(stream.done, "the end of the answer", PATIENCE_MS);

  scenario("the transport's stream ends with the whole answer", async () => {
    assert.equal(joined(await endOf(streams.page)), slowAnswer("slow"));
    assert.equal(await ask(transport, page, "after"), "you said: after");
  });

  scenario("nothing that was written is lost, doubled or moved", async () => {
    await endOf(streams.page);
    const after = await recordsOf(page, "out");
    assert.ok(streams.before.length > 5);
    assert.deepEqual(after.slice(0, streams.before.length), streams.before);
    const seqs = after.map((record) => record.seqNum);
    assert.deepEqual(seqs, [...new Set(seqs)].sort((one, other) => one - other));
    const ids = after.map((record) => record.id).filter(Boolean); // control records have none, and another turn may have come
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(ids.length >= streams.before.length - 1);
  });

  scenario("AgentChat's stream ends with the whole answer", async () => {
    assert.equal(joined(await endOf(streams.agent)), slowAnswer("slow"));
    assert.equal((await completedTurns(agent)).length, 1);
  });

  scenario("useChat shows one message with the whole answer", async () => {
    await endOf(streams.hook);
    assert.deepEqual([useChat.status, useChat.error, useChat.messages.length], ["ready", undefined, 2]);
    assert.equal(messageText(useChat.messages.at(-1)), slowAnswer("slow"));
  });

  scenario("an answer that the new run gives otherwise comes whole, after a part that says so", async () => {
    const chunks = await endOf(streams.changed);
    const restart = chunks.findIndex((chunk) => chunk.type === "data-restart");
    const [now, then] = await runsOf(changed);
    assert.notEqual(now.runId, then.runId);
    assert.equal(joined(chunks.slice(restart)), slowAnswer(now.runId));
    assert.ok(joined(chunks.slice(0, restart)).startsWith(`you said: ${then.runId} 1`));
  });

  scenario("chats that were idle go on", async () => {
    assert.equal(await ask(quiet, idle, "after"), "you said: after");
    assert.equal((await completedTurns(idle)).length, 2);
  });

  scenario("a session whose run had not been asked anything answers", async () => {
    await sessions.open(waiting).in.send(message("hello"));
    await until(async () => (await completedTurns(waiting)).length === 1, "the answer");
  });
});
