// Reloads, lost connections, and a server that is killed: the stream ends with the whole answer all the same.
import assert from "node:assert/strict";
import { ask, atOnce, completedTurns, follow, joined, newId, newTransport, scenario, send, slowAnswer, topic, until, within } from "./harness.mjs";

/** What a page keeps of its chat, as an application stores it: through `onSessionChange`. */
function keeping() {
  const kept = {};
  return { kept, onSessionChange: (chatId, session) => (kept[chatId] = session && structuredClone(session)) };
}

/** A page in the middle of a slow answer; `reload` gives the transport of the page that comes after it. */
async function inMidAnswer(id, page, chunks = 5) {
  const { kept, onSessionChange } = keeping();
  const transport = newTransport({ onSessionChange });
  if (page?.earlier) await ask(transport, id, page.earlier);
  const answer = follow(await send(transport, id, "slow"));
  await until(() => answer.chunks.length >= chunks, "the middle of the answer");
  const reload = () => {
    const sessions = structuredClone(kept);
    transport.dispose();
    return newTransport({ sessions });
  };
  return { transport, answer, reload };
}

topic("resuming", () => {
  scenario("a page reloaded in mid-answer replays the whole answer so far and goes on", async () => {
    const id = newId("reload");
    const page = await inMidAnswer(id);
    const seen = page.answer.chunks.length;
    const reloaded = page.reload();
    const resumed = follow(await reloaded.reconnectToStream({ chatId: id }));
    await until(() => resumed.chunks.length >= seen, "what was there");
    assert.ok(resumed.text().length < slowAnswer("slow").length);
    assert.equal(joined(await within(resumed.done, "the rest")), slowAnswer("slow"));
    assert.equal(resumed.chunks[0].type, "start");
    assert.equal((await completedTurns(id)).length, 1);
    assert.equal(await ask(reloaded, id, "more"), "you said: more");
  });

  scenario("a reload in a later turn does not replay the turns before", async () => {
    const id = newId("later");
    const page = await inMidAnswer(id, { earlier: "one" });
    const resumed = follow(await page.reload().reconnectToStream({ chatId: id }));
    assert.equal(joined(await within(resumed.done, "the rest")), slowAnswer("slow"));
  });

  scenario("a reload before the first chunk waits for the answer", async () => {
    const id = newId("soon");
    const page = await inMidAnswer(id, { earlier: "one" }, 0);
    const resumed = follow(await page.reload().reconnectToStream({ chatId: id }));
    assert.equal(joined(await within(resumed.done, "the answer")), slowAnswer("slow"));
  });

  scenario("an answer that ended while the page was away is delivered whole", async () => {
    const id = newId("away");
    const page = await inMidAnswer(id);
    const reloaded = page.reload();
    await until(async () => (await completedTurns(id)).length === 1, "the turn's end");
    const resumed = follow(await reloaded.reconnectToStream({ chatId: id }));
    assert.equal(joined(await atOnce(resumed.done, "the answer")), slowAnswer("slow"));
  });

  scenario("a page that was told of the end does not reconnect", async () => {
    const id = newId("settled");
    const { kept, onSessionChange } = keeping();
    await ask(newTransport({ onSessionChange }), id, "hi");
    assert.equal(await newTransport({ sessions: kept }).reconnectToStream({ chatId: id }), null);
  });

  scenario("a page that does not know is told at once that the chat is settled", async () => {
    const id = newId("unsure");
    const first = newTransport();
    await ask(first, id, "hi");
    const { publicAccessToken, lastEventId } = first.getSession(id);
    const caughtUp = newTransport({ sessions: { [id]: { publicAccessToken, lastEventId } } });
    const nothing = follow(await caughtUp.reconnectToStream({ chatId: id }));
    assert.deepEqual(await atOnce(nothing.done, "a settled stream"), []);
    const fresh = newTransport({ sessions: { [id]: { publicAccessToken } } });
    const replayed = follow(await fresh.reconnectToStream({ chatId: id }));
    assert.equal(joined(await atOnce(replayed.done, "a settled stream")), "you said: hi");
  });

  scenario("a page that does not know follows the answer that is being written", async () => {
    const id = newId("running");
    const page = await inMidAnswer(id);
    const { publicAccessToken } = page.transport.getSession(id);
    const other = newTransport({ sessions: { [id]: { publicAccessToken } } });
    const seen = follow(await other.reconnectToStream({ chatId: id }));
    assert.equal(joined(await within(seen.done, "the answer")), slowAnswer("slow"));
  });

  scenario("a connection that the network cuts is taken up where it broke", async () => {
    const id = newId("cut");
    const cuts = [];
    const cutting = async (url, init, { endpoint }) => {
      if (endpoint !== "out" || cuts.length === 3) return fetch(url, init);
      cuts.push(new Headers(init.headers).get("Last-Event-ID"));
      const response = await fetch(url, init);
      return new Response(afterFirstBytes(response.body), { status: response.status, headers: response.headers });
    };
    const transport = newTransport({ fetch: cutting });
    const answer = follow(await send(transport, id, "slow"));
    assert.equal(joined(await within(answer.done, "the answer", 15_000)), slowAnswer("slow"));
    assert.equal(cuts.length, 3);
    assert.equal(cuts[0], null);
  });
});

/** The stream up to some bytes; then an error, as a reset connection gives. */
function afterFirstBytes(body) {
  let left = 3;
  return body.pipeThrough(
    new TransformStream({
      transform(bytes, controller) {
        controller.enqueue(bytes);
        if (--left === 0) controller.error(new TypeError("terminated"));
      },
    }),
  );
}
