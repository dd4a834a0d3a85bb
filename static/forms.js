// Small comforts of forms: errors are where the reader is, Enter in a search only searches, nothing is sent twice.
(() => {
  document.querySelector("[data-focus]")?.focus();

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches(".picker input[type=search]")) {
      event.preventDefault();
      event.target.dispatchEvent(new Event("search", { bubbles: true }));
    }
  });

  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post" || event.target.hasAttribute("hx-post") || event.defaultPrevented) return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));
})();
