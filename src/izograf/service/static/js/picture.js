// One picture: its keys work wherever the focus is; hashes are copied; sections follow their jobs.
import { toast } from "./api.js";
import { t } from "./text.js";
import "./live.js";
import "./strip.js";

const page = document.querySelector(".picture-page");

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    toast(t("picture.js.copied"));
  } catch (error) {
    toast(t("picture.js.failed", { reason: error.message }));
  }
});

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea") || document.querySelector("dialog[open]")) return;
  const nowhere = event.target === document.body;
  if (event.key === "1") document.querySelector('[data-view="true-size"]')?.click();
  else if (event.key === "f" && nowhere) page.querySelector("[data-favourite]")?.click();
  else if (event.key === "d" && nowhere) page.querySelector("[data-download]")?.click();
  else return;
  event.preventDefault();
});
