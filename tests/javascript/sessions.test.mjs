// `sessions.*`: the durable rows.
import assert from "node:assert/strict";
import { sessions } from "@trigger.dev/sdk";
import { atOnce, message, newId, newSession, recordsOf, runsOf, scenario, topic, until } from "./harness.mjs";

const refusal = (status, code) => (error) => {
  assert.equal(error.name, "TriggerApiError");
  assert.deepEqual([error.status, error.code], [status, code]);
  return true;
};

const idsOf = (page) => page.data.map((session) => session.externalId);

async function manySessions(about, count) {
  const tag = newId(about);
  const made = [];
  for (let n = 0; n < count; n++) made.unshift((await newSession(newId(about), { tags: [tag] })).externalId);
  return { tag, newestFirst: made };
}

topic("sessions", () => {
  scenario("start makes a session with a run and a token", async () => {
    const id = newId("start");
    const config = { basePayload: { chatId: id }, tags: ["team"], maxAttempts: 2, idleTimeoutInSeconds: 5 };
    const made = await newSession(id, { triggerConfig: config, tags: ["one", "two"], metadata: { plan: { n: 1 } } });
    assert.match(made.id, /^session_/);
    assert.match(made.runId, /^run_/);
    assert.ok(made.publicAccessToken);
    assert.deepEqual([made.isCached, made.externalId, made.taskIdentifier, made.type], [false, id, "echo", "chat.agent"]);
    assert.deepEqual([made.tags, made.metadata, made.closedAt, made.expiresAt], [["one", "two"], { plan: { n: 1 } }, null, null]);
    assert.ok(made.createdAt instanceof Date);
    assert.deepEqual((await sessions.retrieve(id)).triggerConfig, config);
  });

  scenario("a session needs no external id", async () => {
    const made = await newSession(undefined);
    assert.equal(made.externalId, null);
    assert.equal((await sessions.retrieve(made.id)).id, made.id);
  });

  scenario("a cached start gives the session that is there, and takes the new trigger config", async () => {
    const id = newId("cached");
    const first = await newSession(id, { tags: ["kept"] });
    const again = await newSession(id, { triggerConfig: { basePayload: { now: "new" } }, tags: ["ignored"] });
    assert.deepEqual([again.isCached, again.id, again.runId, again.tags], [true, first.id, first.runId, ["kept"]]);
    assert.deepEqual((await sessions.retrieve(id)).triggerConfig, { basePayload: { now: "new" } });
  });

  scenario("twenty starts at once make one session and one run", async () => {
    const id = newId("race");
    const made = await Promise.all(Array.from({ length: 20 }, () => newSession(id)));
    assert.equal(new Set(made.map((session) => session.id)).size, 1);
    assert.equal(new Set(made.map((session) => session.runId)).size, 1);
    assert.equal(made.filter((session) => !session.isCached).length, 1);
    assert.deepEqual((await runsOf(id)).map((run) => run.runId), [made[0].runId]);
  });

  scenario("retrieve takes either id and says 404 to others", async () => {
    const made = await newSession(newId("retrieve"));
    assert.deepEqual(await sessions.retrieve(made.id), await sessions.retrieve(made.externalId));
    await assert.rejects(sessions.retrieve(newId("nobody")), refusal(404, "session_not_found"));
  });

  scenario("update replaces tags and metadata, and null clears", async () => {
    const id = newId("update");
    await newSession(id, { tags: ["old"], metadata: { n: 1 } });
    const tagged = await sessions.update(id, { tags: ["new"] });
    assert.deepEqual([tagged.tags, tagged.metadata], [["new"], { n: 1 }]);
    assert.equal((await sessions.update(id, { metadata: null })).metadata, null);
    assert.deepEqual((await sessions.retrieve(id)).tags, ["new"]);
    await assert.rejects(sessions.update(id, { externalId: newId("other") }), refusal(422, "external_id_immutable"));
  });

  scenario("close is final and keeps its first reason", async () => {
    const id = newId("close");
    await newSession(id);
    const closed = await sessions.close(id, { reason: "done" });
    assert.ok(closed.closedAt instanceof Date);
    const again = await sessions.close(id, { reason: "later" });
    assert.deepEqual([again.closedAt, again.closedReason], [closed.closedAt, "done"]);
  });

  scenario("close needs no reason", async () => {
    const id = newId("close");
    await newSession(id);
    assert.equal((await sessions.close(id)).closedReason, null);
  });

  scenario("what a closed session refuses is refused at once", async () => {
    const id = newId("closed");
    await newSession(id);
    await sessions.close(id);
    await assert.rejects(atOnce(newSession(id), "a refusal"), refusal(409, "session_closed"));
    const sent = sessions.open(id).in.send(message("too late"));
    await assert.rejects(atOnce(sent, "a refusal"), refusal(409, "session_closed"));
  });

  scenario("a start for another task is refused at once", async () => {
    const id = newId("mismatch");
    await newSession(id);
    const other = newSession(id, { taskIdentifier: "another" });
    await assert.rejects(atOnce(other, "a refusal"), refusal(409, "task_mismatch"));
  });

  scenario("a wrong body is refused with the field's name", async () => {
    await assert.rejects(newSession(newId("wrong"), { triggerConfig: {} }), (error) => {
      assert.equal(error.body.field, "triggerConfig.basePayload");
      return refusal(400, "invalid_request")(error);
    });
  });

  scenario("list filters by tag, status, task, type and external id", async () => {
    const { tag, newestFirst } = await manySessions("filters", 3);
    await sessions.close(newestFirst[1]);
    const ids = async (filter) => idsOf(await sessions.list({ tag, ...filter }));
    assert.deepEqual(await ids({}), newestFirst);
    assert.deepEqual(await ids({ status: "CLOSED" }), [newestFirst[1]]);
    assert.deepEqual(await ids({ status: ["ACTIVE", "EXPIRED"] }), [newestFirst[0], newestFirst[2]]);
    assert.deepEqual(await ids({ status: ["ACTIVE", "CLOSED"], type: ["chat.agent", "other"], taskIdentifier: "echo" }), newestFirst);
    assert.deepEqual(await ids({ externalId: newestFirst[2] }), [newestFirst[2]]);
    assert.deepEqual(await ids({ type: "other" }), []);
    assert.deepEqual(await ids({ from: new Date(Date.now() - 60_000), to: new Date(Date.now() + 60_000) }), newestFirst);
    assert.deepEqual(await ids({ period: "1h" }), newestFirst);
    assert.deepEqual(await ids({ to: new Date(Date.now() - 60_000) }), []);
  });

  scenario("list pages lead forward and back", async () => {
    const { tag, newestFirst } = await manySessions("pages", 5);
    const first = await sessions.list({ tag, limit: 2 });
    const second = await first.getNextPage();
    const third = await second.getNextPage();
    assert.deepEqual([first, second, third].map(idsOf), [newestFirst.slice(0, 2), newestFirst.slice(2, 4), newestFirst.slice(4)]);
    assert.deepEqual([first.hasPreviousPage(), third.hasPreviousPage(), third.hasNextPage()], [false, true, false]);
    const back = await sessions.list({ tag, limit: 2, before: third.pagination.previous });
    assert.deepEqual(idsOf(back), idsOf(second));
    assert.deepEqual(idsOf(await back.getPreviousPage()), idsOf(first));
    // A page that was reached with one cursor sends it along when it is left in the other direction.
    await assert.rejects(third.getPreviousPage(), refusal(400, "invalid_request"));
  });

  scenario("a loop over the list sees every session once", async () => {
    const { tag, newestFirst } = await manySessions("loop", 7);
    const seen = [];
    for await (const session of sessions.list({ tag, limit: 3 })) seen.push(session.externalId);
    assert.deepEqual(seen, newestFirst);
    const sizes = [];
    for await (const page of (await sessions.list({ tag, limit: 3 })).iterPages()) sizes.push(page.data.length);
    assert.deepEqual(sizes, [3, 3, 1]);
  });

  scenario("an external id may have slashes", () => converse("a/b//c/in/append"));
  scenario("an external id may have percent signs", () => converse("100%25 %2F %"));
  scenario("an external id may have question marks and ampersands", () => converse("what?after=1&b=2#top"));
  scenario("an external id may have spaces and plus signs", () => converse("one two+three"));
  scenario("an external id may have letters of every script", () => converse("беседа-会話-🦉"));
  scenario("an external id may have 256 characters in half a thousand bytes", () => converse("é".repeat(256)));
});

async function converse(text) {
  const id = (newId("x") + text).slice(0, 256);
  const made = await newSession(id);
  assert.equal(made.externalId, id);
  assert.equal((await sessions.retrieve(id)).id, made.id);
  await sessions.open(id).in.send(message("hello"));
  await until(async () => (await recordsOf(made.id, "out")).length > 0, "an answer");
  assert.deepEqual(await recordsOf(id, "in"), await recordsOf(made.id, "in"));
  assert.equal((await sessions.update(id, { tags: ["seen"] })).id, made.id);
  assert.deepEqual(idsOf(await sessions.list({ externalId: id })), [id]);
  assert.equal((await sessions.close(id)).externalId, id);
}
