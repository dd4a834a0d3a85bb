// Buttons with data-copy="#id" copy that element's text. Without this script they stay hidden.
(() => {
  function show(root) {
    for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
  }

  async function copy(element) {
    // Pages on plain http (other than this machine) have no navigator.clipboard.
    if (navigator.clipboard) return navigator.clipboard.writeText(element.textContent);
    getSelection().selectAllChildren(element);
    if (!document.execCommand("copy")) throw new Error("not copied");
    getSelection().removeAllRanges();
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const label = (button.dataset.label ??= button.textContent);
    try {
      await copy(document.querySelector(button.dataset.copy));
      button.textContent = "Copied";
    } catch {
      button.textContent = "Copy failed; select the text";
    }
    setTimeout(() => (button.textContent = label), 1500);
  });

  show(document);
  document.addEventListener("htmx:load", (event) => show(event.target));
})();
