// A mask in memory: one byte for each pixel of the picture, 1 where it is to be repainted.
// Places are in pixels of the picture; pixel i covers the numbers from i to i + 1.

/** A box of whole pixels, [left, top, right, bottom), cut off at the mask's edges; null if empty. */
function inside(mask, left, top, right, bottom) {
  const box = [
    Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top)),
    Math.min(mask.width, Math.ceil(right)), Math.min(mask.height, Math.ceil(bottom)),
  ];
  return box[0] < box[2] && box[1] < box[3] ? box : null;
}

export function joined(a, b) {
  if (!a || !b) return a ?? b;
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}

export class Mask {
  constructor(width, height) {
    Object.assign(this, { width, height, data: new Uint8Array(width * height) });
  }

  get whole() { return [0, 0, this.width, this.height]; }

  /** The share of the picture that is to be repainted, from 0 to 1. */
  get share() {
    let count = 0;
    for (const value of this.data) count += value;
    return count / this.data.length;
  }

  at([x, y]) { return this.data[Math.floor(y) * this.width + Math.floor(x)] ?? 0; }

  /** A stroke with round ends: every pixel whose centre is within half of `size` of the line. */
  line([ax, ay], [bx, by], size, value) {
    const radius = Math.max(size / 2, Math.SQRT1_2);  // less would leave gaps between the pixels
    const [dx, dy] = [bx - ax, by - ay];
    const length = dx * dx + dy * dy;
    const box = inside(
      this, Math.min(ax, bx) - radius, Math.min(ay, by) - radius,
      Math.max(ax, bx) + radius, Math.max(ay, by) + radius,
    );
    if (!box) return null;
    for (let y = box[1]; y < box[3]; y++) {
      for (let x = box[0]; x < box[2]; x++) {
        const [px, py] = [x + 0.5 - ax, y + 0.5 - ay];
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const [ox, oy] = [px - along * dx, py - along * dy];
        if (ox * ox + oy * oy <= radius * radius) this.data[y * this.width + x] = value;
      }
    }
    return box;
  }

  /** Every pixel that the rectangle between two corners touches. */
  rectangle([ax, ay], [bx, by], value) {
    const box = inside(
      this, Math.min(ax, bx), Math.min(ay, by),
      Math.floor(Math.max(ax, bx)) + 1, Math.floor(Math.max(ay, by)) + 1,
    );
    if (!box) return null;
    for (let y = box[1]; y < box[3]; y++) {
      this.data.fill(value, y * this.width + box[0], y * this.width + box[2]);
    }
    return box;
  }

  /** Every pixel whose centre lies inside a closed polygon (even-odd rule). */
  polygon(corners, value) {
    const [xs, ys] = [corners.map(([x]) => x), corners.map(([, y]) => y)];
    const box = inside(this, Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
    if (!box) return null;
    for (let y = box[1]; y < box[3]; y++) {
      const crossings = [];
      corners.forEach(([ax, ay], i) => {
        const [bx, by] = corners[(i + 1) % corners.length];
        if ((ay <= y + 0.5) !== (by <= y + 0.5)) {
          crossings.push(ax + ((y + 0.5 - ay) / (by - ay)) * (bx - ax));
        }
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const from = Math.max(box[0], Math.ceil(crossings[i] - 0.5));
        const to = Math.min(box[2], Math.ceil(crossings[i + 1] - 0.5));
        if (from < to) this.data.fill(value, y * this.width + from, y * this.width + to);
      }
    }
    return box;
  }

  invert() {
    for (let i = 0; i < this.data.length; i++) this.data[i] ^= 1;
    return this.whole;
  }

  /** White on black, opaque, as pixels of a canvas. */
  pixels() {
    const image = new ImageData(this.width, this.height);
    const words = new Uint32Array(image.data.buffer);
    const [black, white] = new Uint32Array(new Uint8Array([0, 0, 0, 255, 255, 255, 255, 255]).buffer);
    for (let i = 0; i < words.length; i++) words[i] = this.data[i] ? white : black;
    return image;
  }
}

function cut(data, width, [left, top, right, bottom]) {
  const part = new Uint8Array((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) {
    part.set(data.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  }
  return part;
}

/** Steps back and forth: each keeps the changed box before and after, within a bound of memory. */
export class History {
  constructor(mask, most = 64 << 20) {
    Object.assign(this, { mask, most, done: [], undone: [], bytes: 0 });
  }

  /** Keeps a change, given the mask's data before it; false if nothing changed. */
  keep(before, box) {
    const [old, now] = [before, this.mask.data].map((data) => cut(data, this.mask.width, box));
    if (old.every((value, i) => value === now[i])) return false;
    this.done.push({ box, old, now });
    for (const step of this.undone) this.bytes -= 2 * step.old.length;
    this.undone = [];
    this.bytes += 2 * old.length;
    while (this.bytes > this.most && this.done.length > 1) this.bytes -= 2 * this.done.shift().old.length;
    return true;
  }

  undo() { return this.#move(this.done, this.undone, "old"); }
  redo() { return this.#move(this.undone, this.done, "now"); }

  #move(from, to, which) {
    const step = from.pop();
    if (!step) return null;
    to.push(step);
    const [left, top, right, bottom] = step.box;
    for (let y = top; y < bottom; y++) {
      const row = (y - top) * (right - left);
      this.mask.data.set(step[which].subarray(row, row + right - left), y * this.mask.width + left);
    }
    return step.box;
  }
}
