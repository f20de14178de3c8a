// `out` written by a plain Node process with the secret key: the SDK asks us for credentials, and writes by itself where they say:
// into S2, or to our own data plane.
import assert from "node:assert/strict";
import { auth, sessions } from "@trigger.dev/sdk";
import { chat } from "@trigger.dev/sdk/ai";
import {
  IS_SCOPED, KEY, SERVER, atOnce, call, completedTurns, follow, message, newId, newSession, newToken, newTransport, readTurn, recordsOf, runsOf, scenario, send,
  textOf, topic, until, within,
} from "./harness.mjs";

const LARGEST = 1024 * 1024 - 1024; // What the SDK takes: the JSON of a chunk and its envelope, in bytes.
const BATCH = 1000; // What S2 takes at once.

const numbered = (count, from = 0) => Array.from({ length: count }, (_, n) => ({ type: "data-number", data: from + n }));
const numbersOf = (chunks) => chunks.map((chunk) => chunk.data);

/** Write `chunks` with one writer; returns the seq of the last one. */
const writeAll = async (out, chunks) => {
  const { waitUntilComplete } = out.writer({ execute: ({ write }) => chunks.forEach((chunk) => write(chunk)) });
  return Number((await waitUntilComplete()).lastEventId);
};

/** A session with a run that nobody carries out, so that nobody else writes; or with an agent's. */
const outOf = async (name, taskIdentifier = "elsewhere") => {
  const id = newId(name);
  await newSession(id, { taskIdentifier });
  return { id, out: sessions.open(id).out };
};

/** Read `count` chunks of `out`, with their events. */
async function take(id, count, lastEventId) {
  const events = [];
  const stream = await sessions.open(id).out.read({ lastEventId, timeoutInSeconds: 10, onPart: (part) => events.push(part) });
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
    if (chunks.length === count) break;
  }
  return { chunks, events };
}

/** Ask for `out` after an event, and look only at the answer's headers. */
async function headersAfter(id, lastEventId) {
  const left = new AbortController();
  const headers = { Authorization: `Bearer ${KEY}`, "Last-Event-ID": String(lastEventId), "X-Peek-Settled": "1" };
  const answer = await fetch(`${SERVER}/realtime/v1/sessions/${encodeURIComponent(id)}/out`, { headers, signal: left.signal });
  left.abort();
  return answer.headers;
}

/** Everything that writes, each on a handle that has asked for nothing yet. */
const writesTo = (id) => [
  () => sessions.open(id).out.append({ type: "data-x" }),
  () => sessions.open(id).out.writer({ execute: ({ write }) => write({ type: "data-x" }) }).waitUntilComplete(),
  () => sessions.open(id).out.pipe([{ type: "data-x" }]).waitUntilComplete(),
  () => sessions.open(id).out.writeControl("turn-complete"),
  () => sessions.open(id).out.trimTo(1),
];

topic("writing out directly", () => {
  scenario("append, writer and pipe store objects in the order they were written", async () => {
    const { id, out } = await outOf("order");
    await out.append({ type: "data-number", data: 0 });
    assert.equal(await writeAll(out, numbered(3, 1)), 3);
    const piped = out.pipe(
      (async function* () {
        yield* numbered(3, 4);
      })(),
    );
    assert.deepEqual(numbersOf(await follow(piped.stream).done), [4, 5, 6]);
    assert.deepEqual(await piped.waitUntilComplete(), { lastEventId: "6" });
    const { chunks, events } = await take(id, 7);
    assert.deepEqual(chunks, numbered(7));
    assert.deepEqual(events.map((event) => Number(event.id)), [0, 1, 2, 3, 4, 5, 6]);
    assert.deepEqual((await recordsOf(id, "out")).map((record) => record.data), numbered(7));
  });

  scenario("a writer merges streams into what it writes", async () => {
    const { id, out } = await outOf("merge");
    const { waitUntilComplete } = out.writer({
      execute: ({ write, merge }) => {
        write({ type: "data-number", data: 0 });
        merge(ReadableStream.from(numbered(3, 1)));
      },
    });
    await waitUntilComplete();
    assert.deepEqual(numbersOf((await take(id, 4)).chunks), [0, 1, 2, 3]);
  });

  scenario("what is written arrives at readers as it is written", async () => {
    const { id, out } = await outOf("live");
    const reader = (await out.read({ timeoutInSeconds: 10 })).getReader();
    for (const chunk of numbered(5)) {
      await out.append(chunk);
      assert.deepEqual((await atOnce(reader.read(), "the chunk")).value, chunk);
    }
    await reader.cancel();
  });

  scenario("a session that does not exist yet can be written by its external id", async () => {
    const id = newId("early");
    await sessions.open(id).out.append({ type: "data-number", data: 1 });
    await newSession(id);
    assert.deepEqual(numbersOf((await take(id, 1)).chunks), [1]);
  });

  scenario("any external id names the same channel for writers and readers", async () => {
    for (const name of ["slash/and space", "%2F percent", "ünï会話🦉", "?a=b&c#d", "x".repeat(200)]) {
      const { id, out } = await outOf(name);
      await out.append({ type: "data-name", data: name });
      assert.deepEqual((await take(id, 1)).chunks, [{ type: "data-name", data: name }]);
    }
  });

  scenario("the friendly id writes the channel of the external one", async () => {
    const id = newId("friendly");
    const { id: sessionId } = await newSession(id);
    await sessions.open(sessionId).out.append({ type: "data-number", data: 1 });
    assert.deepEqual(numbersOf((await take(id, 1)).chunks), [1]);
  });

  scenario("writeControl tells its seq and reaches readers with its headers", async () => {
    const { id, out } = await outOf("control");
    await writeAll(out, numbered(2));
    assert.deepEqual(await out.writeControl("turn-complete", [["session-in-event-id", "7"], ["x-mine", "ü"]]), { lastEventId: "2" });
    const { chunks, control } = await readTurn(id);
    assert.deepEqual(chunks, numbered(2));
    assert.deepEqual(Object.fromEntries(control.headers), { "trigger-control": "turn-complete", "session-in-event-id": "7", "x-mine": "ü" });
    assert.deepEqual([control.subtype, control.seqNum], ["turn-complete", 2]);
  });

  scenario("a channel is settled when the last thing written to it is a turn-complete, trims apart", async () => {
    const { id, out } = await outOf("settled");
    const isSettled = async () => (await headersAfter(id, 0)).get("x-session-settled");
    await out.append(numbered(1)[0]);
    assert.equal(await isSettled(), null);
    const { lastEventId } = await out.writeControl("turn-complete");
    assert.equal(await isSettled(), "true");
    await out.trimTo(Number(lastEventId));
    assert.equal(await isSettled(), "true");
    await out.append(numbered(1)[0]);
    assert.equal(await isSettled(), null);
  });

  scenario("reading goes on after any event", async () => {
    const { id, out } = await outOf("resume");
    await writeAll(out, numbered(20));
    await out.writeControl("note");
    for (const last of [0, 7, 18]) assert.deepEqual((await take(id, 19 - last, last)).chunks, numbered(19 - last, last + 1));
    const { records } = (await call("GET", `/realtime/v1/sessions/${id}/out/records?afterEventId=18`)).body;
    assert.deepEqual(records.map((record) => [record.seqNum, record.data]), [[19, { type: "data-number", data: 19 }], [20, ""]]);
  });

  scenario("trimTo lets records go, and a reader that asks for them is told of the gap", async () => {
    const { id, out } = await outOf("trim");
    await writeAll(out, numbered(10));
    await out.trimTo(6);
    await until(async () => (await recordsOf(id, "out"))[0].seqNum === 6, "the trim");
    assert.equal((await headersAfter(id, 2)).get("x-session-gap"), "6");
    assert.equal((await headersAfter(id, 5)).get("x-session-gap"), null);
    assert.deepEqual((await take(id, 4, 2)).chunks, numbered(4, 6));
    assert.deepEqual((await take(id, 4)).chunks, numbered(4, 6));
    await out.append({ type: "data-number", data: 11 });
    const { chunks, events } = await take(id, 1, 9);
    assert.deepEqual([numbersOf(chunks), events[0].id], [[11], "11"], "the trim has a seq of its own");
  });

  scenario("a trim backwards brings nothing back", async () => {
    const { id, out } = await outOf("backwards");
    await writeAll(out, numbered(5));
    await out.trimTo(3);
    await until(async () => (await recordsOf(id, "out"))[0].seqNum === 3, "the trim");
    await out.trimTo(1);
    await out.append({ type: "data-number", data: 7 });
    assert.deepEqual(numbersOf((await take(id, 3)).chunks), [3, 4, 7]);
  });

  scenario("the largest chunk that the SDK takes arrives whole, and a larger one is refused before it is sent", async () => {
    const { id, out } = await outOf("large");
    const envelope = JSON.stringify({ data: { type: "data-large", data: "" }, id: "1234567" }).length;
    const large = (bytes) => ({ type: "data-large", data: "x".repeat(bytes - envelope) });
    await assert.rejects(out.append(large(LARGEST + 1)), { name: "ChatChunkTooLargeError" });
    await writeAll(out, [large(LARGEST), large(LARGEST), { type: "data-number", data: 2 }]);
    const { chunks } = await take(id, 3);
    assert.deepEqual(chunks.map((chunk) => chunk.data.length ?? chunk.data), [LARGEST - envelope, LARGEST - envelope, 2]);
  });

  scenario("thousands of chunks of one writer arrive in order", async () => {
    const { id, out } = await outOf("many");
    const count = 4.5 * BATCH;
    assert.equal(await writeAll(out, numbered(count)), count - 1);
    const { chunks, events } = await take(id, count);
    assert.deepEqual(chunks, numbered(count));
    assert.deepEqual(events.map((event) => Number(event.id)), [...Array(count).keys()]);
  });

  scenario("writers side by side keep their orders and lose nothing", async () => {
    const { id } = await outOf("beside");
    const [writers, each] = [5, 100];
    const seqs = await Promise.all(
      Array.from({ length: writers }, (_, writer) => {
        const chunks = Array.from({ length: each }, (_, n) => ({ type: `data-${writer}`, data: n }));
        return writeAll(sessions.open(id).out, chunks);
      }),
    );
    assert.equal(Math.max(...seqs), writers * each - 1);
    const { chunks } = await take(id, writers * each);
    for (let writer = 0; writer < writers; writer++) {
      const mine = chunks.filter((chunk) => chunk.type === `data-${writer}`);
      assert.deepEqual(numbersOf(mine), [...Array(each).keys()]);
    }
  });

  scenario("an agent's turn follows what was written directly", async () => {
    const { id, out } = await outOf("before", "echo");
    await writeAll(out, numbered(3));
    await sessions.open(id).in.send(message("hello"));
    const { chunks, text, control } = await readTurn(id);
    assert.deepEqual([chunks.slice(0, 3), text], [numbered(3), "you said: hello"]);
    await out.append({ type: "data-number", data: 4 });
    assert.deepEqual(numbersOf((await take(id, 1, control.seqNum)).chunks), [4]);
  });

  scenario("a run that begins and writes shuts no direct writer out", async () => {
    const { id, out } = await outOf("mixed", "echo");
    let isOver = false;
    let written = 0;
    const piped = out.pipe(
      (async function* () {
        while (!isOver) {
          yield { type: "data-number", data: written++ };
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      })(),
    );
    await until(() => written > 5, "the writer");
    await sessions.open(id).in.send(message("endless"));
    const bothWrote = async () => {
      const types = (await recordsOf(id, "out")).map((record) => record.data.type);
      const between = types.slice(types.indexOf("text-delta"), types.lastIndexOf("text-delta"));
      return between.filter((type) => type === "data-number").length > 10;
    };
    await until(bothWrote, "both to write at the same time");
    isOver = true;
    await piped.waitUntilComplete();
    await sessions.open(id).in.send({ kind: "stop" });
    const { chunks, text } = await readTurn(id);
    assert.ok(text.startsWith("you said: endless 1"), text);
    const numbers = numbersOf(chunks.filter((chunk) => chunk.type === "data-number"));
    assert.deepEqual(numbers, [...numbers.keys()]);
    const stored = (await recordsOf(id, "out")).filter((record) => record.data.type === "data-number");
    assert.deepEqual(stored.map((record) => record.data.data), [...Array(written).keys()]);
    assert.equal((await completedTurns(id)).length, 1);
    assert.equal((await runsOf(id)).length, 1);
  });

  scenario("a turn that plain Node writes ends in the transport", async () => {
    const id = newId("agent");
    const start = chat.createStartSessionAction("elsewhere");
    const transport = newTransport({ startSession: ({ chatId, clientData }) => start({ chatId, clientData }) });
    const { out } = sessions.open(id);
    for (const said of ["one", "two"]) {
      const answer = textOf(await send(transport, id, said));
      const asked = (await recordsOf(id, "in")).at(-1).seqNum;
      await writeAll(out, [
        { type: "start", messageId: `a-${said}` },
        { type: "text-start", id: "t" },
        { type: "text-delta", id: "t", delta: `written: ${said}` },
        { type: "text-end", id: "t" },
        { type: "finish" },
      ]);
      const { lastEventId } = await out.writeControl("turn-complete", [["session-in-event-id", String(asked)]]);
      assert.equal(await within(answer, "the answer"), `written: ${said}`);
      await out.trimTo(Number(lastEventId));
    }
  });

  scenario("a session token may write no out, in only where its credentials can be limited to it, and learns it at once", async () => {
    const { id } = await outOf("token");
    const accessToken = await newToken(id);
    await auth.withAuth({ baseURL: SERVER, accessToken }, async () => {
      for (const write of writesTo(id)) await assert.rejects(atOnce(write(), "a refusal"), (error) => error.status === 403);
    });
    for (const io of ["in", "out"]) {
      const { status, headers } = await call("PUT", `/realtime/v1/sessions/${id}/${io}`, { token: accessToken });
      const isAllowed = IS_SCOPED && io === "in";
      assert.deepEqual([status, headers.has("x-s2-access-token")], [isAllowed ? 202 : 403, isAllowed]);
    }
    assert.deepEqual(await recordsOf(id, "out"), []);
  });

  scenario("a closed session is refused at once", async () => {
    const { id } = await outOf("closed");
    await sessions.close(id, { reason: "done" });
    const before = await recordsOf(id, "out");
    const isRefusal = (error) => error.status === 400 && error.code === "session_closed";
    for (const write of writesTo(id)) await assert.rejects(atOnce(write(), "a refusal"), isRefusal);
    assert.deepEqual(await recordsOf(id, "out"), before);
  });

  scenario("credentials from before a close work after it only where nobody checks them", async () => {
    const { id, out } = await outOf("held");
    await out.append({ type: "data-number", data: 0 });
    await sessions.close(id, { reason: "done" });
    const late = out.append({ type: "data-number", data: 1 });
    if (IS_SCOPED) await assert.rejects(atOnce(late, "a refusal"), (error) => error.status === 403);
    else await late;
    const { status, body } = await call("POST", `/realtime/v1/sessions/${id}/out/append`, { body: "brokered" });
    assert.deepEqual([status, body.code], [400, "session_closed"]);
    const stored = numbersOf((await recordsOf(id, "out")).map((record) => record.data).filter((data) => data.type));
    assert.deepEqual(stored, IS_SCOPED ? [0] : [0, 1]);
  });
});
