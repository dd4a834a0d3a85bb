// Small comforts of forms: errors are where the reader is, Enter in a search only searches, nothing is sent twice.
(() => {
  document.querySelector("[data-focus]")?.focus();

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches(".picker input[type=search]")) {
      event.preventDefault();
      event.target.dispatchEvent(new Event("search", { bubbles: true }));
    }
  });

  // The example of the test console comes a little later than the page: it must not replace what is typed by then.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const byItself = event.target.id === "console" && event.detail.requestConfig.elt === event.target;
    if (byItself && event.target.querySelector("textarea")?.value) event.detail.shouldSwap = false;
  });

  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post" || event.target.hasAttribute("hx-post") || event.defaultPrevented) return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));
})();
