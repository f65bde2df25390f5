// Comparing: rows follow their jobs; a column's head lays that seed's pictures over each other.
import { t } from "./text.js";
import "./live.js";
import "./compare-slider.js";

const names = (row) => row.dataset.model;

/** The picture in a column of a row. */
function pictureIn(row, column) {
  return row.querySelector(`td[data-column="${column}"] img`);
}

function setUp() {
  const overlay = document.querySelector("iz-compare");
  const table = document.querySelector(".compare-table");
  if (!overlay || !table || table.dataset.ready) return;
  table.dataset.ready = "";
  const rows = new Map([...table.querySelectorAll("tr[data-row]")].map((row) => [row.dataset.row, row]));
  const [left, right] = overlay.querySelectorAll("select");
  let column = 0;

  const lay = () => {
    const pair = [left, right].map((select) => rows.get(select.value));
    const images = pair.map((row) => pictureIn(row, column));
    if (images.every(Boolean)) overlay.lay([images[0], names(pair[0])], [images[1], names(pair[1])]);
    heads.forEach((button, i) => button.setAttribute("aria-pressed", String(i === column)));
  };
  const heads = [...table.querySelectorAll("thead th")].slice(1).map((head, i) => {
    const seed = head.lastChild.textContent.trim();
    const button = Object.assign(document.createElement("button"), {
      type: "button", className: "quiet-button number", textContent: seed,
      ariaLabel: t("compare.js.overlay", { seed }),
    });
    button.addEventListener("click", () => { column = i; lay(); });
    head.replaceChildren(button);
    return button;
  });
  left.addEventListener("change", lay);
  right.addEventListener("change", lay);
  lay();
}
document.addEventListener("iz-section", setUp);
setUp();
