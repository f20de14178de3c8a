// Writes `out` as the official Node client does. Each line of the input is a job; each line of the output says how long its parts took, in seconds.
// The packages are those of the tests, in the folder that is the argument: an import would look for them beside this file.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { join } from "node:path";

const require = createRequire(join(process.argv[2], "package.json"));
const { auth, sessions } = require("@trigger.dev/sdk");
const { AppendInput, AppendRecord, S2 } = require("@s2-dev/streamstore");

const BODY_BYTES = 100;
const envelope = JSON.stringify({ data: "", id: "1234567" }).length; // What the SDK puts round a text.
const text = "x".repeat(BODY_BYTES - envelope);

const timed = async (act) => {
  const start = performance.now();
  await act();
  return (performance.now() - start) / 1000;
};

const jobs = {
  /** One writer that writes as fast as it can. */
  async stream({ session, count }) {
    const { out } = sessions.open(session);
    return [await timed(() => out.writer({ execute: ({ write }) => { for (let n = 0; n < count; n++) write(text); } }).waitUntilComplete())];
  },

  /** One record after the other over one append session, each when the one before is acknowledged. */
  async acks({ url, key, session, count }) {
    const { headers } = await fetch(`${url}/realtime/v1/sessions/${session}/out`, { method: "PUT", headers: { Authorization: `Bearer ${key}` } });
    const [accessToken, basin, stream, endpoint] = ["access-token", "basin", "stream-name", "endpoint"].map((name) => headers.get(`x-s2-${name}`));
    const s2 = new S2({ accessToken, endpoints: { account: endpoint, basin: endpoint } });
    const appends = await s2.basin(basin).stream(stream).appendSession();
    const append = async (n) => {
      const body = JSON.stringify({ data: text, id: String(n).padStart(7, "0") });
      await (await appends.submit(AppendInput.create([AppendRecord.string({ body })]))).ack();
    };
    const times = [];
    for (let n = 0; n < count; n++) times.push(await timed(() => append(n)));
    await appends.close();
    return times;
  },

  /** The same through the server's own route, over one connection. */
  async brokered({ url, key, session, count }) {
    const append = async (n) => {
      const headers = { Authorization: `Bearer ${key}`, "X-Part-Id": String(n) };
      const answer = await fetch(`${url}/realtime/v1/sessions/${session}/out/append`, { method: "POST", headers, body: text });
      if (!answer.ok) throw new Error(await answer.text());
      await answer.arrayBuffer();
    };
    const times = [];
    for (let n = 0; n < count; n++) times.push(await timed(() => append(n)));
    return times;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  const times = await auth.withAuth({ baseURL: job.url, accessToken: job.key }, () => jobs[job.what](job));
  process.stdout.write(`${JSON.stringify(times)}\n`);
}
process.exit(); // The SDK may leave a timer behind.
