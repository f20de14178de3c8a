// One JSON line per scenario that has ended: what harness/scenarios.py reads.
import { inspect } from "node:util";

const ENDED = new Set(["test:pass", "test:fail"]);

export default async function* report(events) {
  for await (const { type, data } of events) {
    if (!ENDED.has(type) || data.details.type === "suite") continue;
    const error = type === "test:fail" ? inspect(data.details.error?.cause ?? data.details.error) : null;
    yield JSON.stringify({ name: data.name, seconds: data.details.duration_ms / 1000, error }) + "\n";
  }
}
