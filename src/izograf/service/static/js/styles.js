// The page of styles: the words of one go to the clipboard.
import { toast } from "./api.js";
import { t } from "./text.js";

document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    toast(t("styles.js.copied"));
  } catch (error) {
    toast(t("styles.js.failed", { reason: error.message }));
  }
});
