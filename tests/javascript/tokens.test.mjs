// Who may do what with which token, and how clients get new ones.
import assert from "node:assert/strict";
import { auth, sessions } from "@trigger.dev/sdk";
import { chat } from "@trigger.dev/sdk/ai";
import {
  KEY, SERVER, ask, atOnce, call, client, expiredToken, follow, joined, message, newId, newSession, newToken, newTransport, recordsOf, scenario, send,
  startSession, topic, until, within,
} from "./harness.mjs";

const isRefused = (status, code) => (error) => {
  assert.deepEqual([error.status, error.code], [status, code]);
  return true;
};
const forbidden = isRefused(403, "unauthorized");
const unknown = isRefused(401, "unauthenticated");

const claimsOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

/** Read a stream to its first chunk: an error is only told to who reads. */
const read = async (id) => (await sessions.open(id).out.read()).getReader().read();

/** Run the SDK's calls with this credential instead of the secret key. */
const as = (accessToken, run) => auth.withAuth({ baseURL: SERVER, accessToken }, () => atOnce(run(), "an answer"));

/** A transport that holds this token, and counts how often it asks for another. */
function holding(id, publicAccessToken, options = {}) {
  const asked = [];
  const accessToken = async ({ chatId }) => {
    asked.push(chatId);
    return newToken(chatId);
  };
  return Object.assign(newTransport({ sessions: { [id]: { publicAccessToken } }, accessToken, ...options }), { asked });
}

topic("tokens", () => {
  scenario("a send with an expired token asks for a new one once and succeeds", async () => {
    const id = newId("expired");
    await newSession(id);
    const transport = holding(id, await expiredToken(id));
    assert.equal(await ask(transport, id, "hi"), "you said: hi");
    assert.equal(await ask(transport, id, "again"), "you said: again");
    assert.deepEqual(transport.asked, [id]);
    assert.equal((await recordsOf(id, "in")).length, 2);
  });

  scenario("a send with another session's token asks for a new one once and succeeds", async () => {
    const id = newId("wrong");
    await newSession(id);
    const transport = holding(id, await newToken(newId("other")));
    assert.equal(await ask(transport, id, "hi"), "you said: hi");
    assert.deepEqual(transport.asked, [id]);
  });

  scenario("a token that expires before the stream is opened is renewed for the stream", async () => {
    const id = newId("stream");
    const { publicAccessToken } = await startSession({ chatId: id });
    const late = { token: await expiredToken(id), used: 0 };
    const spoiling = (url, init, { endpoint }) => {
      if (endpoint !== "out" || late.used++) return fetch(url, init);
      const headers = new Headers(init.headers);
      headers.set("Authorization", `Bearer ${late.token}`);
      return fetch(url, { ...init, headers });
    };
    const transport = holding(id, publicAccessToken, { fetch: spoiling });
    assert.equal(await ask(transport, id, "hi"), "you said: hi");
    assert.deepEqual(transport.asked, [id]);
  });

  scenario("every completed turn brings a fresh token", async () => {
    const id = newId("rolled");
    const { publicAccessToken } = await startSession({ chatId: id });
    const transport = holding(id, publicAccessToken);
    await until(() => Date.now() >= (claimsOf(publicAccessToken).iat + 1) * 1000, "the next second: a token's time is in seconds");
    await ask(transport, id, "one");
    const rolled = transport.getSession(id).publicAccessToken;
    assert.ok(claimsOf(rolled).exp > claimsOf(publicAccessToken).exp);
    assert.equal(await ask(transport, id, "two"), "you said: two");
    assert.deepEqual(transport.asked, []);
    await as(rolled, () => sessions.retrieve(id));
    await assert.rejects(as(rolled, () => sessions.close(id)), forbidden);
  });

  scenario("a session's own token reads and writes that session and nothing else", async () => {
    const [id, other] = [newId("own"), newId("foreign")];
    const { publicAccessToken: token } = await newSession(id);
    const made = await newSession(other);
    assert.equal((await as(token, () => sessions.retrieve(id))).externalId, id);
    await as(token, () => sessions.open(id).in.send(message("hi")));
    for (const name of [other, made.id, newId("nobody")]) {
      await assert.rejects(as(token, () => sessions.retrieve(name)), forbidden);
      await assert.rejects(as(token, () => sessions.open(name).in.send("x")), forbidden);
      await assert.rejects(as(token, () => read(name)), (error) => error.status === 403);
    }
    await assert.rejects(as(token, () => sessions.update(id, { tags: [] })), forbidden);
    await assert.rejects(as(token, () => sessions.close(id)), forbidden);
    await assert.rejects(as(token, () => sessions.list()), forbidden);
    await assert.rejects(as(token, () => newSession(newId("new"))), forbidden);
    await assert.rejects(as(token, () => client().appendToSessionStream(id, "out", "forged")), forbidden);
  });

  scenario("a token for either id works on both", async () => {
    const id = newId("both");
    const made = await newSession(id);
    for (const token of [await newToken(id), await newToken(made.id)]) {
      assert.equal((await as(token, () => sessions.retrieve(id))).id, made.id);
      assert.equal((await as(token, () => sessions.retrieve(made.id))).id, made.id);
    }
  });

  scenario("a token that the client signs itself can do what its scopes say", async () => {
    const id = newId("signed");
    await newSession(id);
    const reader = await auth.createPublicToken({ scopes: { read: { sessions: id } }, expirationTime: "10m" });
    assert.equal((await as(reader, () => sessions.retrieve(id))).externalId, id);
    await assert.rejects(as(reader, () => sessions.open(id).in.send("x")), forbidden);
    const admin = await auth.createPublicToken({ scopes: { admin: { sessions: id } } });
    await assert.rejects(as(admin, () => sessions.retrieve(id)), forbidden);
    assert.deepEqual((await as(admin, () => sessions.update(id, { tags: ["x"] }))).tags, ["x"]);
    const starter = await auth.createPublicToken({ scopes: { write: { tasks: "echo" } } });
    assert.equal((await as(starter, () => newSession(newId("started")))).isCached, false);
    await assert.rejects(as(starter, () => newSession(newId("started"), { taskIdentifier: "other" })), forbidden);
  });

  scenario("a page with a reader's token may watch but not write", async () => {
    const id = newId("watch");
    await ask(newTransport(), id, "hi");
    const token = await auth.createPublicToken({ scopes: { read: { sessions: id } } });
    const asked = [];
    const transport = newTransport({ sessions: { [id]: { publicAccessToken: token } }, accessToken: () => (asked.push(id), token) });
    const seen = follow(await transport.reconnectToStream({ chatId: id }));
    assert.equal(joined(await within(seen.done, "a settled stream")), "you said: hi");
    assert.equal(transport.getSession(id).publicAccessToken, token);
    await assert.rejects(send(transport, id, "let me in"), (error) => error.status === 403);
    assert.equal(asked.length, 1);
  });

  scenario("the server mints tokens for those who cannot sign", async () => {
    const id = newId("minted");
    await newSession(id);
    const { token } = await client().createPublicToken({ scopes: [`read:sessions:${id}`], expirationTime: "1m" });
    assert.equal((await as(token, () => sessions.retrieve(id))).externalId, id);
    await assert.rejects(as(token, () => sessions.open(id).in.send("x")), forbidden);
  });

  scenario("a start action with a lifetime gives a token of that lifetime", async () => {
    const id = newId("ttl");
    const { publicAccessToken } = await chat.createStartSessionAction("echo", { tokenTTL: "5m" })({ chatId: id });
    const { exp, iat } = claimsOf(publicAccessToken);
    assert.equal(exp - iat, 300);
    assert.equal(await ask(holding(id, publicAccessToken), id, "hi"), "you said: hi");
  });

  scenario("credentials that do not work are refused at once", async () => {
    const id = newId("refused");
    await newSession(id);
    const expired = await expiredToken(id);
    const forged = `${(await newToken(id)).slice(0, -4)}AAAA`;
    for (const token of ["tr_dev_nobody0000000000000000000", expired, forged, "nonsense"]) {
      await assert.rejects(as(token, () => sessions.retrieve(id)), unknown);
      await assert.rejects(as(token, () => read(id)), (error) => error.status === 401);
    }
    assert.equal((await call("GET", "/api/v1/sessions", { token: KEY })).status, 200);
  });
});
