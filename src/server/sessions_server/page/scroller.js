// Keeping the end of the turns in view.

import { show } from "./dom.js";

const NEAR = 80;

/** Keeps the end in view while it is in view, and offers the way back to it when it is not. */
export class Scroller {
  #sticks = true;
  #top = 0;

  /** @param {HTMLElement} box @param {HTMLButtonElement} button */
  constructor(box, button) {
    this.box = box;
    this.button = button;
    box.addEventListener("scroll", () => this.#look(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.follow()).observe(box);
  }

  /** Go to the end and stay there. */
  toEnd() {
    this.#sticks = true;
    this.follow();
  }

  /** Call after something was drawn. */
  follow() {
    if (this.#sticks) this.box.scrollTop = this.box.scrollHeight;
    show(this.button, !this.#sticks);
  }

  /** Only going up is leaving the end: it also gets out of view when the box shrinks. */
  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.box;
    if (scrollHeight - scrollTop - clientHeight < NEAR) this.#sticks = true;
    else if (scrollTop < this.#top) this.#sticks = false;
    this.#top = scrollTop;
    show(this.button, !this.#sticks);
  }
}
