// How a picture lies on the stage of the mask editor: zoom, pan, and places below the pointer.
// Zoom 1 is one pixel of the picture for one of CSS.

const LARGEST = 16384;  // of the layer's edge, in CSS pixels
const MOST = 32;

export class View {
  constructor(stage, layer) {
    Object.assign(this, { stage, layer, width: 1, height: 1, zoom: 1, x: 0, y: 0, fitted: true });
    new ResizeObserver(() => (this.fitted ? this.fit() : this.pan(0, 0))).observe(stage);
  }

  /** A picture of this size, as large as the stage allows. */
  show(width, height) {
    Object.assign(this, { width, height });
    this.fit();
  }

  fit() {
    const room = Math.min(this.stage.clientWidth / this.width, this.stage.clientHeight / this.height);
    if (!(room > 0)) return;  // not shown just now
    this.#set(room >= 1 ? Math.floor(room) : room);
    this.fitted = true;
    this.pan(0, 0);
  }

  /** Zooms, keeping what lies at a place of the window where it is. */
  zoomTo(zoom, at = this.#middle()) {
    const [x, y] = this.place(at);
    this.#set(zoom);
    this.fitted = false;
    const box = this.layer.getBoundingClientRect();
    const scale = box.width / this.width;
    this.pan(at.clientX - (box.left + x * scale), at.clientY - (box.top + y * scale));
  }

  /** To the next power of two above (1) or below (-1). */
  step(direction, at) {
    const power = Math.log2(this.zoom);
    const next = direction > 0 ? Math.floor(power + 1e-6) + 1 : Math.ceil(power - 1e-6) - 1;
    this.zoomTo(2 ** next, at);
  }

  /** Moves by pixels of the window; what is smaller than the stage stays in its middle. */
  pan(dx, dy) {
    const ratio = this.#ratio();
    const [w, h] = [this.width * this.zoom, this.height * this.zoom];
    this.x = within(this.x + dx / ratio, w, this.stage.clientWidth);
    this.y = within(this.y + dy / ratio, h, this.stage.clientHeight);
    this.layer.style.transform = `translate(${this.x}px, ${this.y}px)`;
  }

  /** The place in the picture below the pointer of an event; may lie outside. */
  place({ clientX, clientY }) {
    const box = this.layer.getBoundingClientRect();
    return [
      ((clientX - box.left) / box.width) * this.width,
      ((clientY - box.top) / box.height) * this.height,
    ];
  }

  /** Moves just so far that a place of the picture is seen. */
  reveal([x, y], margin = 24) {
    const [left, top] = [this.x + x * this.zoom, this.y + y * this.zoom];
    const ratio = this.#ratio();
    const [w, h] = [this.stage.clientWidth, this.stage.clientHeight];
    const by = (at, room) => Math.max(0, margin - at) - Math.max(0, at - (room - margin));
    this.pan(by(left, w) * ratio, by(top, h) * ratio);
  }

  #set(zoom) {
    const edge = Math.max(this.width, this.height);
    const least = Math.min(1, 32 / edge);
    this.zoom = Math.min(Math.max(zoom, least), Math.max(least, Math.min(MOST, LARGEST / edge)));
    this.layer.style.width = `${this.width * this.zoom}px`;
    this.layer.style.height = `${this.height * this.zoom}px`;
  }

  /** Pixels of the window for one of the stage's own, where the page itself is zoomed by a style. */
  #ratio() { return this.stage.getBoundingClientRect().width / this.stage.offsetWidth || 1; }

  #middle() {
    const box = this.stage.getBoundingClientRect();
    return { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
  }
}

function within(at, length, room) {
  if (length <= room) return (room - length) / 2;
  return Math.min(room / 4, Math.max(room * 0.75 - length, at));
}
