// The other tabs of this browser that show the same session: how many there are, and a word to them when something was said.
// A browser that has no BroadcastChannel shows each tab as the only one.

export class Tabs {
  #me = crypto.getRandomValues(new Uint32Array(2)).join("-");
  /** @type {Set<string>} */
  #others = new Set();

  /**
   * @param {string} session
   * @param {() => void} onChange the number of tabs has changed
   * @param {() => void} onSaid another tab has put something on `in`
   */
  constructor(session, onChange, onSaid) {
    this.onChange = onChange;
    this.onSaid = onSaid;
    this.channel = "BroadcastChannel" in window ? new BroadcastChannel(`sessions.${session}`) : null;
    if (this.channel === null) return;
    this.channel.onmessage = ({ data }) => this.#hear(data);
    this.leave = this.leave.bind(this);
    window.addEventListener("pagehide", this.leave);
    this.#tell("hello");
  }

  /** How many tabs show the session, this one included. */
  get count() {
    return this.#others.size + 1;
  }

  /** Tell the others to look at `in`. */
  said() {
    this.#tell("said");
  }

  leave() {
    this.#tell("bye");
    this.channel?.close();
    window.removeEventListener("pagehide", this.leave);
  }

  #hear({ kind, from }) {
    if (kind === "said") this.onSaid();
    const before = this.#others.size;
    if (kind === "bye") this.#others.delete(from);
    else this.#others.add(from);
    if (kind === "hello") this.#tell("here");
    if (before !== this.#others.size) this.onChange();
  }

  #tell(kind) {
    this.channel?.postMessage({ kind, from: this.#me });
  }
}
